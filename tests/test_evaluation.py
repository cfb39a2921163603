import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_task

from umair_jax.data.batches import BatchSource
from umair_jax.training import sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import MeshConfig, make_mesh, place_context
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")


def predictor(devices=8, model=1, task=None):
    mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
    task = task or toy_task.ToyTask()
    optimiser = make_optimiser(OptimConfig(), 10)
    init = states.initialiser(task, optimiser, TableOptimConfig(), seed=0)
    state = states.create(init, states.abstract_state(init, mesh, sharding.DEFAULT_RULES))
    context = place_context(task.context(), mesh)
    found = Predictor(task, mesh)
    return lambda source, *stop: found(state, context, source, *stop)


def source_of(examples, batch_size=16, **options):
    return BatchSource(toy_task.columns(examples), batch_size, shuffle=False, **options)


@pytest.fixture(scope="module")
def eight():
    return predictor()


@pytest.mark.parametrize("examples", [1, 15, 16, 17, 70])
def test_every_example_once_and_in_order(examples, eight):
    found = eight(source_of(70, index=np.arange(examples)))["probability"]
    assert found.shape == (examples,)
    np.testing.assert_array_equal(found, eight(source_of(70))["probability"][:examples])


def test_the_size_of_the_batch_does_not_matter(eight):
    expected = eight(source_of(70))["probability"]
    for batch_size in (8, 64, 128):
        found = eight(source_of(70, batch_size))["probability"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_split_is_served_in_its_own_order(eight):
    index = np.array([44, 3, 17, 5, 68])
    found = eight(source_of(70, index=index))["probability"]
    np.testing.assert_array_equal(found, eight(source_of(70))["probability"][index])


@pytest.mark.parametrize(("devices", "model"), [(1, 1), (2, 1), (4, 2), (8, 4)])
def test_the_same_on_any_number_of_devices(devices, model, eight):
    source = source_of(70)
    found, expected = predictor(devices, model)(source), eight(source)
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-6)
    evaluate = toy_task.evaluator(source).metrics
    assert evaluate(found) == pytest.approx(evaluate(expected), abs=1e-6)


def test_results_of_any_shape(eight):
    class Wide(toy_task.ToyTask):
        def predict(self, net, rows, stats, context, batch):
            return {
                "vectors": rows["embedding"],
                "item": batch["item"],
                "padding": batch["weight"] == 0,
            }

    source = source_of(19)
    found = predictor(task=Wide())(source)
    assert found["vectors"].shape == (19, 2, toy_task.WIDTH)
    np.testing.assert_array_equal(found["item"], source.column("item"))
    assert not found["padding"].any()


def test_a_stop_gives_up(eight):
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 3

    assert eight(source_of(70), stop) is None
    assert len(asked) == 3
    assert eight(source_of(70), lambda: False) is not None


def test_a_batch_that_does_not_divide(eight):
    with pytest.raises(ValueError, match="batch_size 12 does not divide over 8 devices"):
        eight(source_of(70, 12))


def test_compiles_once_a_shape():
    traces = 0

    class Counting(toy_task.ToyTask):
        def predict(self, net, rows, stats, context, batch):
            nonlocal traces
            traces += 1
            return {"zero": jnp.zeros(batch["item"].shape)}

    predict = predictor(task=Counting())
    predict(source_of(70))
    predict(source_of(33))
    assert traces == 1
