"""The whole ranker at small sizes: every option, independence of the batch, masks, gradients."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models.ranker import Ranker, RankerConfig, RankerInputs

SMALL = RankerConfig(
    user_fields=3,
    item_fields=4,
    embedding_width=4,
    user_dense=(("long", 5), ("short", 6)),
    modalities=(("content", 12), ("style", 7), ("text", 9)),
    tower_widths=(16, 8),
    modality_width=8,
    cross_rank=3,
    cross_experts=2,
    head_widths=(8, 4),
)
OPTIONS = {
    "paper": {},
    "senet": {"umcm": "senet"},
    "mixture": {"umcm": "mixture", "umcm_experts": ("senet", "attention", "attention")},
    "static": {"umcm": "static"},
    "no fusion": {"umcm": "none"},
    "vector": {"cross": "vector"},
    "matrix": {"cross": "matrix", "residual": True},
    "low rank": {"cross": "low_rank", "fm": "embeddings", "wide": False},
    "no cross": {"cross": "none", "modality_norm": True},
    "vectors cross": {"fm": "vectors"},
    "widths": {"umcm": "senet", "modality_width": 6},
    "no meta": {"meta": False},
    "only meta": {"modalities": ()},
    "style alone": {"meta": False, "modalities": (("style", 7),), "user_dense": ()},
    "bfloat16": {"dtype": "bfloat16"},
}


def config(name):
    return dataclasses.replace(SMALL, **OPTIONS[name])


def draw(cfg, batch, seed=0):
    random = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape).astype(np.float32))

    return RankerInputs(
        user_embeddings=normal(batch, cfg.user_fields, cfg.embedding_width),
        item_embeddings=normal(batch, cfg.item_fields, cfg.embedding_width),
        wide=normal(batch, cfg.user_fields + cfg.item_fields) if cfg.wide else None,
        user_dense={name: normal(batch, width) for name, width in cfg.user_dense},
        modalities={name: normal(batch, width) for name, width in cfg.modalities},
    )


def build(cfg, seed=0):
    """A ranker with random weights and statistics, none at its initial value."""
    graph, params, stats = nnx.split(
        nnx.eval_shape(lambda: Ranker(cfg, rngs=nnx.Rngs(0))), nnx.Param, nnx.BatchStat
    )
    random = np.random.default_rng(seed)

    def fill(leaf):
        scale = 1.0 / np.sqrt(max(leaf.shape[0], 4))
        return jnp.asarray(scale * random.normal(size=leaf.shape), jnp.float32)

    params = jax.tree.map(fill, nnx.to_pure_dict(params))
    stats = jax.tree.map(lambda leaf: 0.5 + jnp.abs(fill(leaf)), nnx.to_pure_dict(stats))
    return nnx.merge(graph, params, stats)


@functools.partial(jax.jit, static_argnames="train")
def run(ranker, inputs, train=False, weight=None):
    """Output and the ranker with its new statistics."""
    return ranker(inputs, train=train, weight=weight), ranker


def statistics(ranker):
    return jax.tree.leaves(nnx.to_pure_dict(nnx.state(ranker, nnx.BatchStat)))


def take(inputs, rows):
    return jax.tree.map(lambda x: x[rows], inputs)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_prediction_never_depends_on_the_rest_of_the_batch(name):
    cfg = config(name)
    ranker = build(cfg)
    inputs = draw(cfg, 16)
    alone, _ = run(ranker, take(inputs, slice(0, 1)))
    assert alone.logit.shape == (1,)
    assert alone.weights.shape == (1, len(cfg.modality_names))
    order = np.concatenate([[0], 1 + np.random.default_rng(1).permutation(15)])
    # Another batch size may sum in another order; nothing more may differ.
    atol = 0.05 if cfg.dtype == "bfloat16" else 1e-5
    for rows in (np.arange(16), order):
        together, _ = run(ranker, take(inputs, rows))
        np.testing.assert_allclose(together.logit[0], alone.logit[0], atol=atol, rtol=atol)
        np.testing.assert_allclose(together.weights[0], alone.weights[0], atol=atol)
        np.testing.assert_allclose(together.weights.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_training_step_is_finite_even_with_missing_modalities(name):
    cfg = config(name)
    graph, params, stats = nnx.split(build(cfg), nnx.Param, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)
    inputs = draw(cfg, 12)
    present = np.random.default_rng(3).random((12, len(cfg.modality_names))) < 0.5
    present[0] = False
    present[:, -1] = False  # one modality is missing in the whole batch
    for column, key in enumerate(inputs.modalities, start=int(cfg.meta)):
        missing = ~present[:, column]
        inputs.modalities[key] = jnp.where(missing[:, None], jnp.nan, inputs.modalities[key])
    inputs = inputs._replace(present=jnp.asarray(present))
    weight = jnp.array([1.0] * 10 + [0.0] * 2)

    # Compiled in half the time without XLA's optimisations, which matter to no result here.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def step(params, inputs):
        def loss(params, embeddings):
            ranker = nnx.merge(graph, params, stats)
            x = inputs._replace(user_embeddings=embeddings[0], item_embeddings=embeddings[1])
            logit, weights = ranker(x, train=True, key=jax.random.key(0), weight=weight)
            new = nnx.to_pure_dict(nnx.state(ranker, nnx.BatchStat))
            return (weight * jax.nn.softplus(-logit)).sum(), (new, logit, weights)

        embeddings = (inputs.user_embeddings, inputs.item_embeddings)
        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, embeddings)

    results = step(nnx.to_pure_dict(params), inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))
    (_, (new, _, weights)), (gradients, _) = results
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert np.abs(gradients["head"]["layers"]["layer_0"]["dense"]["kernel"]).max() > 0
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), new, stats)
    assert moved["head"]["layers"]["layer_0"]["norm"]["mean"]


def test_missing_modalities_get_no_weight_and_an_empty_row_falls_back_to_meta():
    ranker = build(SMALL)
    inputs = draw(SMALL, 3)
    present = jnp.array([[True, True, False, True], [False] * 4, [True] * 4])
    masked, _ = run(ranker, inputs._replace(present=present))
    plain, _ = run(ranker, inputs)
    assert masked.weights[0, 2] == 0
    np.testing.assert_allclose(masked.weights[1], [1, 0, 0, 0])
    np.testing.assert_allclose(masked.logit[2], plain.logit[2], atol=1e-5)
    other = dict(inputs.modalities, style=inputs.modalities["style"] * 5)
    changed, _ = run(ranker, inputs._replace(present=present, modalities=other))
    np.testing.assert_allclose(changed.logit[:2], masked.logit[:2], atol=1e-6)


def test_padding_does_not_change_a_training_step():
    cfg = dataclasses.replace(SMALL, dropout=0.0, attention_dropout=0.0, modality_norm=True)
    inputs = draw(cfg, 12)
    plain, ranker = run(build(cfg), take(inputs, slice(0, 9)), train=True)
    weight = jnp.array([1.0] * 9 + [0.0] * 3)
    masked, padded = run(build(cfg), inputs, train=True, weight=weight)
    np.testing.assert_allclose(masked.logit[:9], plain.logit, atol=1e-5)
    for a, b in zip(statistics(ranker), statistics(padded), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_projecting_distinct_rows_once_gives_the_same_training_step():
    cfg = dataclasses.replace(SMALL, dropout=0.0, attention_dropout=0.0)
    users, items = np.array([0, 1, 0, 2, 1, 0]), np.array([1, 1, 0, 2, 0, 1])
    inputs = draw(cfg, 3)
    whole = RankerInputs(
        inputs.user_embeddings[users],
        inputs.item_embeddings[items],
        None,
        {name: x[users] for name, x in inputs.user_dense.items()},
        {name: x[items] for name, x in inputs.modalities.items()},
    )
    cfg = dataclasses.replace(cfg, wide=False)
    expected, expected_ranker = run(build(cfg), whole, train=True)
    times = [jnp.asarray(np.bincount(rows), jnp.float32) for rows in (users, items)]

    @jax.jit
    def by_steps(ranker):
        user = ranker.encode_user(inputs.user_embeddings, inputs.user_dense, True, weight=times[0])
        item = ranker.encode_items(
            inputs.item_embeddings, inputs.modalities, train=True, weight=times[1]
        )
        fused, weights = ranker.fuse(user[users], item[items], train=True)
        return ranker.score(fused, user[users], train=True), weights, ranker

    logit, weights, ranker = by_steps(build(cfg))
    np.testing.assert_allclose(logit, expected.logit, atol=1e-5)
    np.testing.assert_allclose(weights, expected.weights, atol=1e-6)
    for a, b in zip(statistics(ranker), statistics(expected_ranker), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_machine_over_vectors_adds_every_pair_of_projections_and_embeddings():
    cfg = config("vectors cross")
    ranker = build(cfg)
    inputs = draw(cfg, 5)
    given = {**inputs.user_dense, **inputs.modalities}
    kernels = {name: layer.kernel[...] for name, layer in ranker.fields.projections.items()}
    assert set(kernels) == set(given)
    rows = [inputs.user_embeddings, inputs.item_embeddings]
    rows += [(given[name] @ kernels[name])[:, None] for name in given]
    rows = np.concatenate(rows, axis=1)
    pairs = itertools.combinations(range(rows.shape[1]), 2)
    expected = sum((rows[:, i] * rows[:, j]).sum(axis=1) for i, j in pairs)
    found = ranker.shallow_logit(inputs) - inputs.wide.sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bfloat16_stays_close_to_float32():
    inputs = draw(SMALL, 64)
    full, _ = run(build(SMALL), inputs)
    low, _ = run(build(config("bfloat16")), inputs)
    assert low.logit.dtype == low.weights.dtype == jnp.float32
    spread = float(np.std(full.logit))
    assert np.abs(low.logit - full.logit).mean() < 0.05 * spread
    np.testing.assert_allclose(low.weights, full.weights, atol=0.15)


def test_paper_size():
    shapes = jax.eval_shape(lambda: nnx.state(Ranker(RankerConfig(), rngs=nnx.Rngs(0)), nnx.Param))
    count = sum(x.size for x in jax.tree.leaves(shapes))
    assert 0.36e6 < count < 0.38e6  # the published figure for everything but the tables


def test_training_needs_a_key_only_for_dropout():
    inputs = draw(SMALL, 4)
    with pytest.raises(ValueError, match="pass key="):
        run(build(SMALL), inputs, train=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"umcm": "atten"}, "'atten', expected one of attention, senet, mixture, static, none"),
        ({"cross": "dcnv2"}, "'dcnv2', expected one of none, vector, matrix, low_rank, mixture"),
        ({"fm": "both"}, "got 'both', expected one of none, embeddings, vectors"),
        ({"fm": "vectors", "modalities": (), "user_dense": ()}, "expected embeddings"),
        ({"dtype": "float64"}, "'float64', expected one of float32, bfloat16"),
        ({"dropout": 1.5}, "0 <= rate < 1"),
        ({"modalities": (("meta", 3),)}, "each name once"),
        ({"modalities": (), "meta": False}, "got none"),
        ({"head_widths": ()}, "at least one"),
        ({"item_fields": 0}, "or meta=False"),
        ({"user_fields": 0, "user_dense": ()}, "at least one"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_inputs_that_do_not_fit_the_config_are_refused():
    ranker = build(SMALL)
    inputs = draw(SMALL, 2)
    with pytest.raises(ValueError, match=r"modalities: got \['content', 'style'\], expected"):
        run(
            ranker,
            inputs._replace(modalities={k: inputs.modalities[k] for k in ("content", "style")}),
        )
    with pytest.raises(ValueError, match="user_dense: got"):
        run(ranker, inputs._replace(user_dense={}))
    with pytest.raises(ValueError, match="wide=False"):
        run(ranker, inputs._replace(wide=None))
    with pytest.raises(ValueError, match="user width 8 and modality width 6"):
        Ranker(dataclasses.replace(SMALL, modality_width=6), rngs=nnx.Rngs(0))
