import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_task

from umair_jax.data.batches import BatchSource
from umair_jax.training import sharding
from umair_jax.training import state as states
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh, place_context
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")

B = 16


class Setting:
    """Everything that an update needs, on some devices."""

    def __init__(self, devices=8, model=1, tables=None, optim=None, task=None, seed=0):
        mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
        task = task or toy_task.ToyTask()
        optimiser = make_optimiser(optim or OptimConfig("sgd", 0.1), 10)
        tables = tables or TableOptimConfig("sgd", 0.1)
        init = states.initialiser(task, optimiser, tables, seed=0)
        abstract = states.abstract_state(init, mesh, sharding.DEFAULT_RULES)
        self.state = states.create(init, abstract)
        self.context = place_context(task.context(), mesh)
        self.place = BatchPlacer(mesh, B)
        self.step = TrainStep(task, optimiser, tables, mesh, seed, abstract)

    def run(self, steps=3):
        source = BatchSource(toy_task.columns(200), B, seed=1)
        found = []
        for k in range(steps):
            batch = self.place(source.batch(k))
            self.state, packed = self.step(self.state, self.context, batch)
            found.append(self.step.unpack(packed))
        return found


@pytest.fixture(scope="module")
def eight():
    setting = Setting()
    return setting, setting.run()


def test_one_update_equals_the_gradient_of_the_whole_loss(eight):
    """Dense reference: differentiate through the whole table, then plain SGD."""
    setting, found = Setting(1), eight[1]
    task = toy_task.ToyTask()
    state = toy_copy(setting.state)
    params, context = state["params"], toy_copy(setting.context)
    batch = BatchSource(toy_task.columns(200), B, seed=1).batch(0)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)

    @jax.jit
    @jax.value_and_grad
    def gradient_of(params):
        rows = task.table_rows(context, batch)
        looked_up = {name: params["tables"][name][r] for name, r in rows.items()}
        loss, _ = task.loss(params["net"], looked_up, state["stats"], context, batch, key)
        return loss

    loss, gradient = gradient_of(params)
    expected = jax.tree.map(lambda p, g: np.asarray(p) - 0.1 * np.asarray(g), params, gradient)
    setting.run(1)
    for path, leaf in toy_task.leaves(expected).items():
        ours = toy_task.leaves(setting.state["params"])[path]
        np.testing.assert_allclose(ours, leaf, atol=1e-6, err_msg=path)
    assert found[0]["loss"][0] == pytest.approx(float(loss), abs=1e-6)


def toy_copy(state):
    return jax.tree.map(np.array, state)


@pytest.mark.parametrize(("devices", "model"), [(1, 1), (2, 1), (4, 2)])
def test_the_same_update_on_any_number_of_devices(devices, model, eight):
    other = Setting(devices, model)
    for ours, expected in zip(other.run(), eight[1], strict=True):
        assert ours.keys() == expected.keys()
        for name in ours:
            assert ours[name] == pytest.approx(expected[name], abs=1e-5)
    leaves = toy_task.leaves(eight[0].state)
    for path, leaf in toy_task.leaves(other.state).items():
        np.testing.assert_allclose(leaf, leaves[path], atol=1e-5, err_msg=path)


def test_what_is_reported(eight):
    setting, found = eight
    assert set(found[0]) == {"accuracy", "grad_norm", "log_loss", "loss"}
    assert found[0]["log_loss"][1] == B
    assert found[0]["log_loss"][0] / B == pytest.approx(found[0]["loss"][0], rel=1e-6)
    assert all(weight == 1 for step in found for weight in (step["loss"][1], step["grad_norm"][1]))
    assert int(setting.state["step"]) == float(setting.state["stats"]["seen"]) == 3


def test_places_stay_as_they_are_and_the_state_is_donated(eight):
    setting = eight[0]
    before = setting.state
    placed = jax.tree.map(lambda leaf: leaf.sharding, before)
    setting.run(1)
    assert jax.tree.map(lambda leaf: leaf.sharding, setting.state) == placed
    assert before["params"]["tables"]["embedding"].is_deleted()


def test_the_seed_and_the_step_decide_the_dropout():
    same = [Setting(1, seed=seed).run(2)[1]["loss"][0] for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


def test_what_is_compiled_for_one_seed_serves_another():
    batch = BatchSource(toy_task.columns(200), B, seed=1).batch(0)
    both = [Setting(1, seed=seed) for seed in (0, 1)]
    texts = [s.step.lower(s.state, s.context, s.place(batch)).as_text() for s in both]
    assert texts[0] == texts[1]


def test_tables_follow_the_schedule_of_the_network():
    """At the end of a linear decay nothing moves any more, tables included."""
    setting = Setting(1, optim=OptimConfig("sgd", 0.1, schedule="linear"))
    setting.state["step"] = jnp.int32(10)
    before = toy_copy(setting.state["params"])
    setting.run(1)
    for path, leaf in toy_task.leaves(setting.state["params"]).items():
        np.testing.assert_allclose(leaf, toy_task.leaves(before)[path], atol=1e-8)


def test_an_optimiser_for_each_table():
    one = Setting(1, tables={"embedding": TableOptimConfig("sgd", 0.1)})
    assert one.run(1) == Setting(1).run(1)
    with pytest.raises(ValueError, match="embedding"):
        Setting(1, tables={"wide": TableOptimConfig("sgd", 0.1)})


def test_a_task_without_tables():
    class Plain(toy_task.ToyTask):
        def init(self, key):
            made = super().init(key)
            return {"params": {"net": made["params"]["net"]}, "stats": made["stats"]}

        def table_rows(self, context, batch):
            return {}

        def loss(self, net, rows, stats, context, batch, key):
            logit = (context["features"][batch["item"]] @ net["layers"][0]["kernel"])[:, 0]
            return jnp.mean((logit - batch["label"]) ** 2), (stats, {})

    setting = Setting(8, task=Plain())
    first, second = (setting.run(1)[0]["loss"][0] for _ in range(2))
    assert second < first


def test_nan_anywhere_shows_in_the_norm():
    setting = Setting(1, task=toy_task.ToyTask(explode_at=1))
    found = setting.run(2)
    assert np.isfinite(found[0]["grad_norm"][0])
    assert np.isnan(found[1]["loss"][0])


def test_lower_counts_operations(eight):
    setting = eight[0]
    batch = setting.place(BatchSource(toy_task.columns(20), B).batch(0))
    cost = setting.step.lower(setting.state, setting.context, batch).compile().cost_analysis()
    assert cost["flops"] > 0
