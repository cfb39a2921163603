import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
import small_world
from sklearn.metrics import log_loss
from small_world import SCHEMA, build

from umair_jax import settings
from umair_jax.data.batches import BatchSource
from umair_jax.models.cross import KINDS as CROSSES
from umair_jax.models.ranker import RankerConfig
from umair_jax.models.umcm import KINDS as UMCMS
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.tasks.interactions import table_specs
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

TINY = {
    "tower_widths": (8, 6),
    "modality_width": 6,
    "head_widths": (5,),
    "cross_layers": 1,
    "cross_rank": 2,
    "cross_experts": 2,
}
TABLES = TableOptimConfig(learning_rate=0.1)
ROWS = 256


@pytest.fixture(scope="module", autouse=True)
def compile_fast(compiled_once):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@functools.cache
def data_of(**options):
    return build(small_world.dataset(rows=ROWS, seconds=150), **options)


def task_of(data=None, **options):
    data = data or data_of()
    given = TINY | options | bookmarks.shape_of(data.schema)
    return BookmarksTask(data, settings.build(RankerConfig, given))


class Trainer:
    """A task on some devices, as the loop runs it."""

    def __init__(self, task, devices=1, model=1, seed=0, optim="adam", state=None):
        self.task = task
        self.mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
        optimiser = make_optimiser(OptimConfig(optim, learning_rate=0.02), 10)
        init = states.initialiser(task, optimiser, TABLES, seed)
        self.abstract = states.abstract_state(init, self.mesh, DEFAULT_RULES)
        self.state = (
            states.create(init, self.abstract)
            if state is None
            else jax.device_put(state, states.shardings_of(self.abstract))
        )
        self.context = place_context(task.context(), self.mesh)
        self.step = TrainStep(task, optimiser, TABLES, self.mesh, seed, self.abstract)
        self.predictor = Predictor(task, self.mesh)

    def train(self, source, steps, first=0):
        """Loss of every step."""
        place, losses = BatchPlacer(self.mesh, source.batch_size), []
        for k in range(first, first + steps):
            batch = place(source.batch(k))
            self.state, packed = self.step(self.state, self.context, batch)
            losses.append(self.step.unpack(packed)["loss"][0])
        return losses

    def predict(self, source):
        return self.predictor(self.state, self.context, source)


def batch_of(data, rows):
    return {name: column[rows] for name, column in data.columns.items()} | {
        "weight": np.ones(len(rows), np.float32)
    }


def host(tree):
    return jax.tree.map(np.array, tree)


@pytest.fixture(scope="module")
def trained():
    """Trained for a few steps, so that no parameter is what it was made."""
    trainer = Trainer(task_of(umcm="mixture", fm="embeddings"))
    source = bookmarks.batch_source(data_of(), "train", 32, seed=1)
    trainer.train(source, 6)
    return trainer


# Look-ups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "drop",
    [
        (),
        ("user_id", "username"),
        ("long_term_interest_tag_1", "short_term_interest_tag_3", "tag_0", "total_view"),
        tuple(f"{w}_term_interest_tag_{k}" for w in ("long", "short") for k in range(4)),
    ],
)
@pytest.mark.parametrize("shuffled", [False, True])
def test_rows_equal_the_obvious_way(drop, shuffled):
    made_up = small_world.dataset(3)
    schema = dataclasses.replace(SCHEMA, drop=drop).schema()
    if shuffled:  # the users' own fields need not come before their interest tags
        order = np.random.default_rng(0).permutation(len(schema.fields))
        schema = dataclasses.replace(schema, fields=tuple(schema.fields[k] for k in order))
    data = build(made_up, schema=_Fixed(schema))
    task = task_of(data)
    rows = np.arange(0, len(made_up.interactions), 5)
    found = task.table_rows(placed(task), _arrays(batch_of(data, rows)))
    assert set(found) == {"embedding", "wide"}
    for i, k in enumerate(rows):
        embedding, wide = small_world.table_rows(data.schema, made_up, data.split, "temporal", k)
        np.testing.assert_array_equal(found["embedding"][i], embedding)
        np.testing.assert_array_equal(found["wide"][i], wide)
    assert found["embedding"].dtype == found["wide"].dtype == np.int32


class _Fixed:
    """Stands in for a SchemaConfig where the schema is made already."""

    def __init__(self, schema):
        self._schema = schema

    def schema(self):
        return self._schema


def _arrays(batch):
    return jax.tree.map(jax.numpy.asarray, batch)


def placed(task):
    return _arrays(dict(task.context()))


def test_the_wide_rows_are_left_out_with_the_wide_part():
    task = task_of(wide=False)
    rows = task.table_rows(placed(task), _arrays(batch_of(data_of(), np.arange(4))))
    assert set(rows) == {"embedding"}
    made = jax.eval_shape(task.init, jax.random.key(0))
    assert set(made["params"]["tables"]) == {"embedding"}


def test_rows_stay_within_their_blocks():
    data = data_of()
    specs, task = table_specs(data.schema), task_of()
    batch = _arrays(batch_of(data, np.arange(ROWS)))
    for name, rows in task.table_rows(placed(task), batch).items():
        assert rows.min() >= 0
        assert rows.max() < specs[name].rows
        assert specs[name].padded_rows % 1024 == 0
    layout = data.schema.embedding_layout()
    starts = [start for start, _ in specs["embedding"].blocks]
    assert starts == list(layout.offsets.values())
    assert sum(size for _, size in specs["embedding"].blocks) == layout.used - 1


# Predictions ------------------------------------------------------------------------------------


def test_a_prediction_never_depends_on_the_rest_of_its_batch(trained):
    data = data_of()
    columns, rng = data.columns, np.random.default_rng(0)
    everything = trained.predict(BatchSource(columns, ROWS, shuffle=False))
    assert everything["probability"].shape == (ROWS,)
    assert everything["weights"].shape == (ROWS, len(trained.task.modality_names))
    assert ((everything["probability"] > 0) & (everything["probability"] < 1)).all()
    np.testing.assert_allclose(everything["weights"].sum(axis=1), 1, atol=1e-6)
    assert everything["probability"].std() > 0.01
    orders = [rng.permutation(ROWS), rng.integers(0, ROWS, 300), np.arange(ROWS)[::-1]]
    # 37 leaves padding in the last batch; the third order meets every example alone.
    for order, size in zip(orders, (37, 64, 1), strict=True):
        index = order[:40] if size == 1 else order
        found = trained.predict(BatchSource(columns, size, shuffle=False, index=index))
        for name, values in found.items():
            assert len(values) == len(index)
            np.testing.assert_allclose(values, everything[name][index], atol=2e-6)


def test_missing_modalities_get_no_weight(trained):
    data = data_of()
    weights = trained.predict(BatchSource(data.columns, ROWS, shuffle=False))["weights"]
    present = data.context["present"][data.columns["item"]]
    assert trained.task.modality_names == ("meta", "content", "style", "text")
    assert not weights[:, 1:][~present].any()
    assert (weights[:, 1:][present] > 0).all()


def test_a_label_is_no_input_of_a_prediction(trained):
    columns = data_of().columns
    flipped = columns | {"label": (1 - columns["label"]).astype(np.int8)}
    one, two = (trained.predict(BatchSource(c, ROWS, shuffle=False)) for c in (columns, flipped))
    np.testing.assert_array_equal(one["probability"], two["probability"])


# Loss -------------------------------------------------------------------------------------------


def test_examples_count_by_their_weight():
    data, task = data_of(), task_of(dropout=0.0, attention_dropout=0.0)
    made = jax.jit(task.init)(jax.random.key(3))
    context = placed(task)

    @jax.jit
    def loss(batch):
        rows = task.table_rows(context, batch)
        looked_up = {name: made["params"]["tables"][name][r] for name, r in rows.items()}
        key = jax.random.key(0)
        return task.loss(made["params"]["net"], looked_up, made["stats"], context, batch, key)

    batch = batch_of(data, np.arange(40))
    batch["weight"] = np.array([1.0] * 30 + [0.5] * 4 + [0.0] * 6, np.float32)
    value, (stats, metrics) = loss(_arrays(batch))
    assert set(metrics) == {"log_loss"}
    total, count = metrics["log_loss"]
    assert count == 32
    assert float(total / count) == pytest.approx(float(value), rel=1e-6)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), stats, made["stats"])
    assert all(jax.tree.leaves(moved))
    for row, changes in ((3, True), (31, True), (38, False)):
        label = batch["label"].copy()
        label[row] ^= 1
        other, _ = loss(_arrays(batch | {"label": label}))
        assert (other != value) == changes


def test_the_loss_is_the_log_loss(monkeypatch):
    """Of a model that gives known logits, over a batch that ends in padding."""
    data, task = data_of(), task_of()
    batch = batch_of(data, np.arange(20))
    batch["weight"] = (np.arange(20) < 15).astype(np.float32)
    logit = np.linspace(-4, 4, 20).astype(np.float32)

    class Known:
        def __call__(self, inputs, train=False, key=None):
            assert train
            return bookmarks.RankerOutput(jax.numpy.asarray(logit), inputs.present.astype(float))

    monkeypatch.setattr(bookmarks.nnx, "merge", lambda *_: Known())
    monkeypatch.setattr(bookmarks.nnx, "state", lambda *_: {})
    monkeypatch.setattr(bookmarks.nnx, "to_pure_dict", lambda x: x)
    rows = task.table_rows(placed(task), _arrays(batch))
    embedded = {"embedding": np.zeros((*rows["embedding"].shape, 4), np.float32),
                "wide": np.zeros((*rows["wide"].shape, 1), np.float32)}  # fmt: skip
    loss, _ = task.loss({}, embedded, {}, placed(task), _arrays(batch), jax.random.key(0))
    probability = 1 / (1 + np.exp(-logit.astype(np.float64)))
    expected = log_loss(batch["label"][:15], probability[:15])
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    each = optax.sigmoid_binary_cross_entropy(logit[:15], batch["label"][:15].astype(np.float32))
    assert float(loss) == pytest.approx(float(each.mean()), rel=1e-6)


def test_one_step_reaches_every_parameter():
    # Without dropout, and with a mixture of both experts and all other parts, nothing is idle.
    task = task_of(
        umcm="mixture", cross="mixture", fm="vectors", residual=True, modality_norm=True,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    trainer = Trainer(task)
    source = BatchSource(data_of().columns, ROWS, shuffle=False)
    trainer.train(source, 1)  # what starts at zero lets no gradient through at first
    before = host(trainer.state["params"])
    rows = jax.jit(task.table_rows)(trainer.context, _arrays(source.batch(0)))
    assert np.isfinite(trainer.train(source, 1, first=1)).all()
    after = host(trainer.state["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(after["net"]):
        old = functools.reduce(lambda tree, key: tree[key.key], path, before["net"])
        still = jax.tree_util.keystr(path)
        assert (leaf != old).any(), still
    for name, table in after["tables"].items():
        moved = (table != before["tables"][name]).any(axis=1)
        touched = np.zeros(len(table), bool)
        touched[np.unique(rows[name])] = True
        assert moved[touched].all(), name
        assert not moved[~touched].any(), name


def test_dropout_follows_its_key():
    data, task = data_of(), task_of(umcm="attention", dropout=0.4)
    made = jax.jit(task.init)(jax.random.key(0))
    batch, context = _arrays(batch_of(data, np.arange(64))), placed(task)

    @jax.jit
    def loss(key):
        rows = task.table_rows(context, batch)
        looked_up = {name: made["params"]["tables"][name][r] for name, r in rows.items()}
        return task.loss(made["params"]["net"], looked_up, made["stats"], context, batch, key)[0]

    values = [float(loss(jax.random.key(k))) for k in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


# Devices ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_any_number_of_devices_trains_and_predicts_the_same():
    # Adam would blow up the gradients of biases before a BatchNorm, which are nothing but rounding.
    data, task = data_of(), task_of(umcm="attention", cross="vector")
    source = bookmarks.batch_source(data, "train", 64, seed=2)
    test = bookmarks.batch_source(data, "test", 24)
    expected = state = None
    for devices, model in ((1, 1), (2, 1), (4, 1), (8, 2)):
        trainer = Trainer(task, devices, model, optim="sgd", state=state)
        state = state or host(trainer.state)
        for name, table in trainer.state["params"]["tables"].items():
            shards = [shard.data.shape for shard in table.addressable_shards]
            assert shards == [(len(table) // devices, table.shape[1])] * devices, name
        losses = trainer.train(source, 4)
        predicted = trainer.predict(test)
        expected = expected or (losses, predicted)
        np.testing.assert_allclose(losses, expected[0], rtol=1e-5, atol=1e-5)
        for name, values in predicted.items():
            assert len(values) == len(test)
            np.testing.assert_allclose(values, expected[1][name], atol=1e-5)
    assert len(set(expected[0])) == 4


# Options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("umcm", "cross", "more"),
    [
        ("attention", "none", {"wide": False}),
        ("senet", "vector", {"meta": False}),
        ("static", "matrix", {"dtype": "bfloat16"}),
        ("none", "low_rank", {"modality_norm": True}),
    ],
)
def test_every_kind_trains(umcm, cross, more):
    trainer = Trainer(task_of(umcm=umcm, cross=cross, **more))
    losses = trainer.train(bookmarks.batch_source(data_of(), "train", 32), 2)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(host(trainer.state["params"])))


def test_no_kind_is_forgotten():
    (marks,) = test_every_kind_trains.pytestmark
    umcms, crosses, _ = zip(*marks.args[1], strict=True)
    # The mixtures are those of test_one_step_reaches_every_parameter.
    assert {*umcms, "mixture"} == set(UMCMS)
    assert {*crosses, "mixture"} == set(CROSSES)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_vectors_in_less_memory_change_little(trained, dtype):
    source = BatchSource(data_of().columns, ROWS, shuffle=False)
    context = place_context(data_of(vector_dtype=dtype).context, trained.mesh)
    full = trained.predict(source)
    less = trained.predictor(trained.state, context, source)
    assert context["style"].dtype == dtype
    np.testing.assert_allclose(less["probability"], full["probability"], atol=0.01)
    assert np.abs(less["probability"] - full["probability"]).max() > 0


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vectors_that_come_with_the_batch_change_nothing(tmp_path, dtype):
    losses, predictions = [], []
    for place in ("device", "host"):
        data = data_of(vector_dtype=dtype, vectors_on=place, folder=tmp_path)
        assert ("content" in data.context) == (place == "device")
        trainer = Trainer(task_of(data, umcm="senet", cross="vector"))
        losses.append(trainer.train(bookmarks.batch_source(data, "train", 32), 8))
        predictions.append(trainer.predict(bookmarks.batch_source(data, "test", 32)))
    np.testing.assert_array_equal(losses[1], losses[0])
    for name, array in predictions[0].items():
        np.testing.assert_array_equal(predictions[1][name], array)


def test_a_ranker_of_another_schema_is_refused():
    data = data_of()
    shape = bookmarks.shape_of(data.schema)
    assert shape["user_fields"] == 10
    assert shape["item_fields"] == 14
    assert shape["modalities"] == (("content", 6), ("style", 4), ("text", 5))
    assert [name for name, _ in shape["user_dense"]] == [
        *("long_term_text", "short_term_text", "long_term_style", "short_term_style"),
        *("long_term_content", "short_term_content"),
    ]
    wrong = {"item_fields": 13, "modalities": (("content", 7), ("style", 4), ("text", 5))}
    config = RankerConfig(**(TINY | shape | wrong))
    with pytest.raises(ValueError, match=r"ranker item_fields, modalities: got \[13, .*schema's"):
        BookmarksTask(data, config)
    other = build(schema=dataclasses.replace(SCHEMA, drop=("username",)))
    config = RankerConfig(**(TINY | shape))
    with pytest.raises(ValueError, match=r"ranker user_fields: got \[10\], expected.*\[9\]"):
        BookmarksTask(other, config)


# Sources and evaluators -------------------------------------------------------------------------


def test_sources_serve_their_part_and_evaluators_measure_it(trained):
    data = data_of()
    train, valid, test = (bookmarks.batch_source(data, part, 16) for part in bookmarks.PARTS)
    assert train.shuffle
    assert not valid.shuffle
    assert not test.shuffle
    assert not bookmarks.batch_source(data, "train", 16, shuffle=False).shuffle
    assert len(train) + len(valid) + len(test) == ROWS
    np.testing.assert_array_equal(test.column("label"), data.columns["label"][data.split == 2])
    names = trained.task.modality_names
    evaluator = bookmarks.evaluator(test, 10, names, final_only=True)
    assert evaluator.final_only
    arrays = trained.predict(test)
    found = evaluator.metrics(arrays)
    assert {f"weight_{name}" for name in names} < set(found)
    assert {"auc", "auc_low", "auc_high", "gauc", "ece"} < set(found)
    for k, name in enumerate(names):
        assert found[f"weight_{name}"] == pytest.approx(arrays["weights"][:, k].mean(), rel=1e-5)
    assert found["log_loss"] == pytest.approx(
        log_loss(test.column("label"), arrays["probability"].astype(np.float64)), rel=1e-6
    )
    without = bookmarks.evaluator(test, 0, names).metrics(arrays)
    assert not [name for name in without if name.endswith(("_low", "_high"))]
