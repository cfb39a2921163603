"""Every baseline on the task: with and without vectors, alone or in a batch, hand-made values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_world
from flax import nnx
from sklearn.metrics.pairwise import cosine_similarity
from test_bookmarks import ROWS, Trainer, compile_fast, host  # noqa: F401

from configs import baselines
from umair_jax.data.batches import BatchSource
from umair_jax.data.ranking_config import HISTORY
from umair_jax.jobs.bookmarks import ranker
from umair_jax.models.baselines import BASELINES
from umair_jax.models.baselines.item_knn import nearest_mean
from umair_jax.models.inputs import RankerInputs
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask

DEEP = {"hidden_widths": (6, 4)}
TINY = {
    "wide_deep": DEEP,
    "deepfm": DEEP,
    "xdeepfm": DEEP | {"cin_widths": (3, 2)},
    "dcn": DEEP,
    "dcnv2": DEEP | {"cross_rank": 2, "cross_experts": 2},
    "autoint": DEEP | {"attention_layers": 2, "head_width": 3},
    "difm": DEEP | {"heads": 2, "head_width": 3},
    "edcn": {"layers": 2, "bridge": "attention_pooling", "vector_fields": 1},
    "fibinet": DEEP,
    "finalmlp": {"first_widths": (8, 6), "second_widths": (6, 4), "context": "sides"},
}
CASES = [
    name if vectors else f"{name},sparse"
    for name in baselines.NAMES
    for vectors in (True, False)
    if vectors or name not in ("popularity", "item_knn")
]


@functools.cache
def task_of(case, **options):
    """The task of configs/baselines.py on a made-up site, at a tiny size."""
    config = baselines.get_config(case)
    name = config.model.name
    schema = dataclasses.replace(
        small_world.SCHEMA,
        interest_vectors=tuple(config.schema.interest_vectors),
        drop=tuple(config.schema.drop),
    )
    data = small_world.build(
        small_world.dataset(rows=ROWS, seconds=150),
        schema=schema,
        history=min(5, config.features.history),
    )
    model = config.model.to_dict() | TINY.get(name, {}) | {"name": name} | options
    return BookmarksTask(data, ranker(model, bookmarks.shape_of(data.schema))), data


@functools.cache
def trained(case):
    """Trainer after two updates on everything, the data, and the parameters after the first."""
    plain = case.split(",")[0] in ("popularity", "lr", "fm", "item_knn")
    task, data = task_of(case, **({} if plain else {"dropout": 0.0}))
    trainer = Trainer(task)
    source = BatchSource(data.columns, ROWS, shuffle=False)
    losses = trainer.train(source, 1)  # what starts at zero lets no gradient through at first
    before = host(trainer.state["params"]["net"])
    losses += trainer.train(source, 1, first=1)
    assert np.isfinite(losses).all()
    return trainer, data, before


@pytest.mark.parametrize("case", CASES)
def test_a_step_reaches_every_parameter_and_predictions_are_alone(case):
    trainer, data, before = trained(case)
    after = host(trainer.state["params"]["net"])
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert (old != new).any(), jax.tree_util.keystr(path)
    everything = trainer.predict(BatchSource(data.columns, 64, shuffle=False))
    assert everything["weights"].shape == (ROWS, 0)
    assert everything["probability"].std() > 1e-4
    order = np.random.default_rng(0).permutation(ROWS)
    found = trainer.predict(BatchSource(data.columns, 64, shuffle=False, index=order))
    np.testing.assert_allclose(found["probability"], everything["probability"][order], atol=2e-6)


@pytest.mark.parametrize("name", BASELINES)
def test_vectors_matter_only_where_they_are_inputs(name):
    """Without vectors the batch has none; with them a change of one changes the prediction."""
    if name != "item_knn":
        task, data = task_of(f"{name},sparse")
        assert not data.schema.dense()
        assert not {"content", "style", "text"} & set(task.context())
    trainer, data, _ = trained(name)
    source = BatchSource(data.columns, 64, shuffle=False)
    before = trainer.predict(source)["probability"]
    for column in [f.column for f in data.schema.dense()]:
        changed = dict(trainer.context)
        changed[column] = changed[column][::-1] * 2 + 0.3
        after = trainer.predictor(trainer.state, changed, source)["probability"]
        assert np.abs(after - before).max() > 1e-6, column


@pytest.mark.parametrize("name", ["deepfm", "item_knn"])
def test_what_a_missing_modality_holds_does_not_matter(name):
    cfg = task_of(name)[0].config
    model, inputs = cfg.create(nnx.Rngs(0)), _inputs(cfg)
    hole = inputs._replace(present=inputs.present.at[0, 1].set(False))
    style = inputs.modalities["style"].at[0].set(jnp.nan)
    nan = hole._replace(modalities={**inputs.modalities, "style": style})
    np.testing.assert_array_equal(model(hole).logit, model(nan).logit)
    assert model(hole).logit[0] != model(inputs).logit[0]


def _inputs(cfg, batch=3):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    width = cfg.embedding_width if "embedding" in cfg.tables else 0
    return RankerInputs(
        user_embeddings=draw(batch, cfg.user_fields, width),
        item_embeddings=draw(batch, cfg.item_fields, width),
        wide=draw(batch, cfg.fields),
        user_dense={name: draw(batch, width) for name, width in cfg.user_dense},
        modalities={name: draw(batch, width) for name, width in cfg.modalities},
        present=jnp.ones((batch, len(cfg.modalities)), bool),
        history={name: draw(batch, 4, width) for name, width in cfg.modalities},
    )


# References by hand -----------------------------------------------------------------------------


def test_popularity_knows_counts_alone():
    _, data = task_of("popularity")
    assert [f.name for f in data.schema.fields] == [
        "total_bookmarks",
        "total_view",
        "bookmark_rate",
    ]
    trainer, _, _ = trained("popularity")
    found = trainer.predict(BatchSource(data.columns, 64, shuffle=False))["probability"]
    weights = np.array(trainer.state["params"]["tables"]["wide"])[:, 0]
    bias = float(trainer.state["params"]["net"]["first_order"]["bias"])
    offsets = data.schema.wide_layout().offsets
    logit = np.full(ROWS, bias)
    for name in offsets:
        local = data.columns[name].astype(int)
        logit += weights[np.where(local < 0, 0, local + offsets[name])]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logit)), atol=1e-6)


def test_item_knn_is_the_mean_similarity_to_the_nearest_bookmarks():
    trainer, data, _ = trained("item_knn")
    found = trainer.predict(BatchSource(data.columns, 64, shuffle=False))["probability"]
    net = host(trainer.state["params"]["net"])
    logit = np.full(ROWS, float(net["bias"]))
    rows = data.context[HISTORY][data.columns["state"]]
    for k, name in enumerate(("content", "style", "text")):
        table = data.context[name].astype(np.float64)
        for i in range(ROWS):
            item, liked = table[data.columns["item"][i]], table[rows[i][rows[i] > 0]]
            liked = liked[(liked != 0).any(axis=1)]
            if len(liked):
                near = np.sort(cosine_similarity(item[None], liked)[0])[::-1]
                logit[i] += net["scale"][k] * near[:5].mean()
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logit)), atol=1e-5)


def test_the_nearest_are_the_nearest():
    item = jnp.asarray([[1.0, 0.0]] * 3)
    history = jnp.asarray(
        [
            [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]],
            [[0.0, 0.0]] * 4,
            [[0.0, 0.0], [0.0, 0.0], [-4.0, 0.0], [0.0, 0.0]],
        ]
    )
    np.testing.assert_allclose(nearest_mean(item, history, 2), [0.5, 0.0, -1.0], atol=1e-6)
    np.testing.assert_allclose(nearest_mean(item, history, 9), [0.0, 0.0, -1.0], atol=1e-6)


def test_a_history_holds_the_latest_bookmarks_first():
    made_up = small_world.dataset(rows=ROWS, seconds=150)
    data = small_world.build(made_up, history=5, long_max=3)
    rows = data.context[HISTORY]
    assert rows.shape == (len(data.context["state_rows"]), 5)
    for k in range(0, ROWS, 3):
        expected = small_world.bookmarks_before(made_up, data.split, "temporal", k, 3)[::-1]
        found = rows[data.columns["state"][k]]
        np.testing.assert_array_equal(found, [*expected, *[0] * (5 - len(expected))])


# Options ----------------------------------------------------------------------------------------


def test_a_ranker_that_reads_bookmarks_wants_them_in_the_context():
    data = small_world.build()
    config = ranker({"name": "item_knn"}, bookmarks.shape_of(data.schema))
    with pytest.raises(ValueError, match="features history: got 0, expected 1 or more"):
        BookmarksTask(data, config)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"name": "deep_fm"}, "config.model.name: got 'deep_fm', expected one of umair_fps, lr"),
        ({"name": "deepfm", "umcm": "senet"}, r"config.model.*umcm"),
        ({"name": "deepfm", "hidden_widths": ()}, "baseline hidden_widths: got none"),
        ({"name": "deepfm", "dropout": 1.0}, "baseline dropout: got 1.0, expected 0 <= rate < 1"),
        ({"name": "fm", "vector_fields": 0}, "baseline vector_fields: got 0"),
        ({"name": "fm", "dtype": "int8"}, "baseline dtype: got 'int8', expected one of float32"),
        ({"name": "xdeepfm", "cin_widths": ()}, "xdeepfm cin_widths: got none"),
        ({"name": "dcn", "cross": "cube"}, "cross kind: got 'cube', expected one of none, vector"),
        ({"name": "autoint", "heads": 0}, "autoint heads: got 0, expected at least 1"),
        ({"name": "difm", "head_width": 0}, "difm head_width: got 0, expected at least 1"),
        ({"name": "edcn", "bridge": "rope"}, "edcn bridge: got 'rope', expected one of pointwise"),
        ({"name": "edcn", "cross": "mixture"}, "edcn cross: got 'mixture', expected one of vector"),
        ({"name": "edcn", "layers": 0}, "edcn layers: got 0, expected at least 1"),
        ({"name": "edcn", "temperature": 0.0}, "edcn temperature: got 0.0, expected above 0"),
        ({"name": "fibinet", "bilinear": "none"}, "fibinet bilinear: got 'none', expected one of"),
        ({"name": "finalmlp", "heads": 3}, "finalmlp first_widths: got .* 3 heads, expected two"),
        (
            {"name": "finalmlp", "context": "x"},
            "finalmlp context: got 'x', expected one of learned",
        ),
        ({"name": "item_knn", "neighbours": 0}, "item_knn neighbours: got 0, expected at least 1"),
    ],
)
def test_wrong_options_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        ranker(model, {})


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("deep", "got the argument 'deep'; expected one of popularity, lr"),
        (
            "deepfm,dense",
            "got 'deepfm,dense'; expected a name, ,sparse where a model can do without",
        ),
        (
            "item_knn,sparse",
            "got 'item_knn,sparse'; expected a name, ,sparse where a model can do without",
        ),
    ],
)
def test_wrong_arguments_of_the_config_are_refused(arg, message):
    with pytest.raises(ValueError, match=message):
        baselines.get_config(arg)
