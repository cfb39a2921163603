import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_world
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from small_world import build

from umair_jax.data.batches import BatchSource
from umair_jax.models.sampled_softmax import SampledSoftmaxConfig
from umair_jax.models.two_tower import TwoTowerConfig
from umair_jax.tasks.interactions import shape_of
from umair_jax.tasks.retrieval import DAY, ITEM, LOG_Q, USER, RetrievalTask, log_shares
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import (
    DEFAULT_RULES,
    BatchPlacer,
    MeshConfig,
    make_mesh,
    place_context,
)
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")
TINY = {"tower_widths": (8,), "modality_width": 4, "width": 4, "learn_temperature": True}
BATCH = 16
# Days of publication and of the interactions; some items are out later than some interactions.
PUBLISHED = np.random.default_rng(1).uniform(-5, 3, small_world.ITEMS + 1).astype(np.float32)
WHEN = np.linspace(0, 5, 256, dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
def compile_fast(compiled_once):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@functools.cache
def data_of():
    return build(small_world.dataset(rows=256, seconds=150))


@functools.cache
def task_of():
    data = data_of()
    config = TwoTowerConfig(**TINY, **shape_of(data.schema))
    return RetrievalTask(data, config, SampledSoftmaxConfig(), PUBLISHED)


def source_of(**options):
    rows = data_of().rows("train")
    rows = rows[data_of().columns["label"][rows] == 1]
    return BatchSource({**data_of().columns, DAY: WHEN}, BATCH, index=rows, **options)


def padded_batch():
    batch = source_of().batch(0)
    batch["weight"] = np.where(np.arange(BATCH) < 13, 1, 0).astype(np.float32)
    return batch


class Trained:
    """One update on some devices."""

    def __init__(self, devices, model=1):
        task = task_of()
        self.mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
        tables = TableOptimConfig(learning_rate=0.1)
        optimiser = make_optimiser(OptimConfig("sgd", 0.1), 10)
        init = states.initialiser(task, optimiser, tables, 0)
        abstract = states.abstract_state(init, self.mesh, DEFAULT_RULES)
        self.context = place_context(task.context(), self.mesh)
        step = TrainStep(task, optimiser, tables, self.mesh, 0, abstract)
        placed = BatchPlacer(self.mesh, BATCH)(padded_batch())
        state = states.create(init, abstract)
        self.initial = jax.device_get(state)  # the update takes the state over
        self.state, packed = step(state, self.context, placed)
        self.metrics = step.unpack(packed)
        self.predict = Predictor(task, self.mesh)


@pytest.fixture(scope="module")
def trained():
    return Trained(1)


def test_the_loss_equals_the_obvious_way(trained):
    task, batch = task_of(), source_of().batch(1)
    batch["weight"][[2, 9]] = 0
    params, stats = trained.state["params"], trained.state["stats"]
    context = {name: jnp.asarray(array) for name, array in task.context().items()}
    placed = jax.tree.map(jnp.asarray, batch)
    rows = task.table_rows(context, placed)
    rows = {name: params["tables"][name][r] for name, r in rows.items()}

    @jax.jit
    def both(net, rows):
        loss, (_, metrics) = task.loss(net, rows, stats, context, placed, jax.random.key(0))
        model = nnx.merge(task._graph, net, stats)
        inputs = task.inputs(rows, context, placed)
        vectors = model.both(inputs, train=True, weight=placed["weight"])
        return loss, metrics, vectors, (model.scale(), model.rate())

    loss, metrics, vectors, (scale, rate) = both(params["net"], rows)
    users, items = (np.asarray(v, np.float64) for v in vectors)
    log, split = data_of().columns, data_of().split
    marked = [i for i, s, y in zip(log["item"], split, log["label"], strict=True) if s == 0 and y]
    real = [k for k in range(BATCH) if batch["weight"][k] > 0]
    has = {(batch["user"][k], batch["item"][k]) for k in real}
    losses, right, missed = [], [], 0
    for i in real:
        rivals = [
            j
            for j in real
            if (batch["user"][i], batch["item"][j]) not in has
            and PUBLISHED[batch["item"][j]] <= batch[DAY][i]
        ]
        missed += len(real) - len(rivals)
        logit = [
            float(scale) * users[i] @ items[j]
            + float(rate) * PUBLISHED[batch["item"][j]]
            - np.log(marked.count(batch["item"][j]) / len(marked))
            for j in [i, *rivals]
        ]
        losses.append(np.log(np.exp(np.array(logit) - logit[0]).sum()))
        right.append(logit[0] == max(logit))
    assert missed > len(real)  # more than each example itself
    assert abs(float(rate)) > 1e-4
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["found"][0] / metrics["found"][1] == pytest.approx(np.mean(right))


def test_many_devices_learn_the_same(trained):
    many = Trained(8, model=2)
    assert many.metrics["loss"][0] == pytest.approx(trained.metrics["loss"][0], rel=1e-5)
    assert many.metrics["found"] == trained.metrics["found"]
    pairs = zip(*(jax.tree.leaves(x.state["params"]) for x in (many, trained)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_negatives_are_those_of_all_devices(trained):
    task, made = task_of(), trained.initial

    def loss(made, context, batch):
        rows = task.table_rows(context, batch)
        rows = {name: made["params"]["tables"][name][r] for name, r in rows.items()}
        arguments = made["params"]["net"], rows, made["stats"], context, batch
        return task.loss(*arguments, jax.random.key(0))[0]

    for devices in (2, 4):
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        context = place_context(task.context(), mesh)
        everywhere = jax.device_put(made, NamedSharding(mesh, PartitionSpec()))
        batch = BatchPlacer(mesh, BATCH)(padded_batch())
        found = float(jax.jit(loss)(everywhere, context, batch))
        assert found == pytest.approx(trained.metrics["loss"][0], rel=1e-5)


def test_a_vector_does_not_depend_on_the_rest_of_the_batch(trained):
    whole = trained.predict(trained.state, trained.context, source_of(shuffle=False))
    alone = BatchSource(source_of().columns, BATCH, shuffle=False, index=source_of().index[5:6])
    single = trained.predict(trained.state, trained.context, alone)
    assert whole[USER].shape == whole[ITEM].shape == (len(source_of()), TINY["width"] + 1)
    for name in (USER, ITEM):
        np.testing.assert_allclose(single[name][0], whole[name][5], rtol=1e-5, atol=1e-6)


def test_the_last_number_of_a_vector_is_what_its_day_is_worth(trained):
    found = trained.predict(trained.state, trained.context, source_of(shuffle=False))
    params = jax.device_get(trained.state["params"]["net"])
    published = PUBLISHED[source_of().column("item")]
    expected = params["age_bias"] * published * np.exp(-params["log_scale"])
    np.testing.assert_allclose(found[ITEM][:, -1], expected, rtol=1e-4)
    assert (found[USER][:, -1] == 1).all()
    for name in (USER, ITEM):
        lengths = np.linalg.norm(found[name][:, :-1], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-4)


def test_log_q_is_the_share_of_the_training_bookmarks():
    found = task_of().context()[LOG_Q]
    assert found.dtype == np.float32
    assert len(found) == small_world.ITEMS + 1
    items = source_of().column("item")
    for item in range(1, small_world.ITEMS + 1):
        count = max((items == item).sum(), 1)
        assert found[item] == pytest.approx(np.log(count / len(items)), rel=1e-6)
    found = np.exp(log_shares(np.array([1, 1, 3]), 5)[1:])
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)
