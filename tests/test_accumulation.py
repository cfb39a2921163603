"""Micro-batches and the moving average of the weights, through the whole update."""

import jax
import numpy as np
import pytest
import toy_task

from umair_jax.data.batches import BatchSource
from umair_jax.training import sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh, place_context
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")

B = 16
SGD = OptimConfig("sgd", 0.1)


class NoDropout(toy_task.ToyTask):
    """Without draws a mean over parts equals the mean over the whole."""

    def loss(self, net, rows, stats, context, batch, key):
        logit = self._logit(net, rows, context, batch)
        label, weight = batch["label"].astype("float32"), batch["weight"]
        each = jax.numpy.logaddexp(0, logit) - label * logit
        total, count = (each * weight).sum(), weight.sum()
        return total / count, ({"seen": stats["seen"] + 1}, {"log_loss": (total, count)})


def updated(micro_batches=1, devices=1, optim=SGD, task=None, steps=2):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    task = task or NoDropout()
    optimiser, tables = make_optimiser(optim, 10), TableOptimConfig("sgd", 0.1)
    init = states.initialiser(task, optimiser, tables, seed=0)
    abstract = states.abstract_state(init, mesh, sharding.DEFAULT_RULES)
    state = states.create(init, abstract)
    context = place_context(task.context(), mesh)
    step = TrainStep(task, optimiser, tables, mesh, 0, abstract, micro_batches)
    place, source = BatchPlacer(mesh, B), BatchSource(toy_task.columns(200), B, seed=1)
    history = [jax.device_get(state)]
    for k in range(steps):
        state, packed = step(state, context, place(source.batch(k)))
        history.append(jax.device_get(state))
    return history, step.unpack(packed), (task, mesh, context, state)


@pytest.fixture(scope="module")
def whole():
    return updated()


@pytest.mark.parametrize(("parts", "devices"), [(2, 1), (4, 1), (2, 8), (4, 2)])
def test_parts_of_a_batch_give_the_update_of_the_whole(parts, devices, whole):
    history, metrics, _ = updated(parts, devices)
    expected, expected_metrics, _ = whole
    for name in ("params", "opt"):
        found = toy_task.leaves(history[-1][name])
        for path, leaf in toy_task.leaves(expected[-1][name]).items():
            np.testing.assert_allclose(found[path], leaf, atol=2e-6, err_msg=path)
    for name, values in expected_metrics.items():
        assert metrics[name] == pytest.approx(values, rel=1e-4), name
    # Statistics follow the parts, one after another.
    assert history[-1]["stats"]["seen"] == 2 * parts


def test_each_part_has_draws_of_its_own():
    plain = updated(task=toy_task.ToyTask())[1]["loss"]
    split = updated(2, task=toy_task.ToyTask())[1]["loss"]
    assert plain != split


def test_the_average_follows_its_equation():
    history = updated(optim=OptimConfig("sgd", 0.1, ema_decay=0.9), steps=4)[0]
    expected = toy_task.leaves(history[0]["params"]["net"])
    for step, state in enumerate(history[1:]):
        keep = min(0.9, (1 + step) / (10 + step))
        new = toy_task.leaves(state["params"]["net"])
        expected = {path: keep * leaf + (1 - keep) * new[path] for path, leaf in expected.items()}
    for path, leaf in toy_task.leaves(history[-1]["ema"]["net"]).items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-5, atol=1e-7)
    assert float(history[-1]["ema"]["stats"]["seen"]) < 4


def test_predictions_come_from_the_average():
    _, _, (task, mesh, context, state) = updated(optim=OptimConfig("sgd", 0.1, ema_decay=0.9))
    source = BatchSource(toy_task.columns(32), B, shuffle=False)
    predictor = Predictor(task, mesh)
    found = predictor(state, context, source)["probability"]
    swapped = {
        "params": {**state["params"], "net": state["ema"]["net"]},
        "stats": state["ema"]["stats"],
    }
    np.testing.assert_array_equal(found, predictor(swapped, context, source)["probability"])
    plain = {name: state[name] for name in ("params", "stats")}
    assert np.abs(found - predictor(plain, context, source)["probability"]).max() > 1e-4


def test_a_run_with_both_goes_on_bit_for_bit(tmp_path):
    options = {"train__micro_batches": 2, "optim__ema_decay": 0.9}
    whole = toy_task.run(tmp_path / "whole", **options)
    with pytest.raises(FloatingPointError):
        toy_task.run(tmp_path / "cut", toy_task.ToyTask(explode_at=2 * 23), **options)
    ended = toy_task.run(tmp_path / "cut", **options)
    assert ended.evals == whole.evals
    expected = toy_task.leaves(whole.state)
    assert any("ema" in path for path in expected)
    for path, leaf in toy_task.leaves(ended.state).items():
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not divide into 3 micro-batches"):
        toy_task.run(tmp_path, train__micro_batches=3)
    with pytest.raises(ValueError, match="ema_decay"):
        OptimConfig(ema_decay=1.0)
