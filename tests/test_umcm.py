"""The contribution of modalities: published numbers, independence of the batch, masks."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models.umcm import UMCM, UMCMConfig

GOLDEN = Path(__file__).parent / "golden"
CONFIGS = {
    "attention": UMCMConfig("attention"),
    "senet": UMCMConfig("senet"),
    "static": UMCMConfig("static"),
    "none": UMCMConfig("none"),
    "both": UMCMConfig("mixture", ("senet", "attention")),
    "three": UMCMConfig("mixture", ("attention", "senet", "attention")),
}


def build(name, modalities=4, width=8):
    umcm = UMCM(CONFIGS[name], width, modalities, width, rngs=nnx.Rngs(0))
    if name == "static":
        umcm.logits[...] = jnp.arange(modalities, dtype=jnp.float32) / 2
    return umcm


def draw(batch, modalities=4, width=8, seed=0):
    random = np.random.default_rng(seed)
    user = random.normal(size=(batch, width)).astype(np.float32)
    items = random.normal(size=(batch, modalities, width)).astype(np.float32)
    return jnp.asarray(user), jnp.asarray(items)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["user_aware_senet", "user_aware_senet_small"])
def test_senet_matches_the_published_numbers(name):
    data = np.load(GOLDEN / f"{name}.npz")
    user, items = jnp.asarray(data["user"]), jnp.asarray(data["items"])
    umcm = UMCM(UMCMConfig("senet"), user.shape[1], 4, items.shape[2], rngs=nnx.Rngs(0))
    expert = umcm.experts["expert_0"]
    expert.squeeze.kernel[...] = data["w/k1"]
    expert.squeeze.bias[...] = data["w/b1"]
    expert.excite.kernel[...] = data["w/k2"]
    expert.excite.bias[...] = data["w/b2"]
    graph, params = nnx.split(umcm)

    def apply(params, user, items):
        y = nnx.merge(graph, params)(user, items).fused
        return (y * data["ct"]).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(apply, (0, 1, 2), has_aux=True))(
        nnx.to_pure_dict(params), user, items
    )
    np.testing.assert_allclose(y, data["y"], atol=1e-6)
    np.testing.assert_allclose(gradients[1], data["g/user"], atol=1e-5)
    np.testing.assert_allclose(gradients[2], data["g/items"], atol=1e-5)
    weights = gradients[0]["experts"]["expert_0"]
    for ours, theirs in (
        (weights["squeeze"]["kernel"], "k1"),
        (weights["squeeze"]["bias"], "b1"),
        (weights["excite"]["kernel"], "k2"),
        (weights["excite"]["bias"], "b2"),
    ):
        np.testing.assert_allclose(ours, data[f"g/w/{theirs}"], atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "target"), [("attention_one_example", "y"), ("attention_batch_leaky", "y_intended")]
)
def test_attention_matches_the_published_numbers_of_single_examples(name, target):
    data = np.load(GOLDEN / f"{name}.npz")
    user, items = jnp.asarray(data["user"]), jnp.asarray(data["items"])
    umcm = UMCM(UMCMConfig("attention"), 64, 4, 64, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(umcm(user, items).fused, data[target], atol=1e-5)
    if target == "y":
        total = jax.grad(lambda u, v: (umcm(u, v).fused * data["ct"]).sum(), (0, 1))
        gradients = jax.jit(total)(user, items)
        np.testing.assert_allclose(gradients[0], data["g/user"], atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(gradients[1], data["g/items"], atol=1e-4, rtol=1e-5)
    else:
        assert np.abs(umcm(user, items).fused - data["y"]).max() > 0.01  # the published leak


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_does_not_depend_on_the_rest_of_its_batch(name):
    umcm = build(name)
    user, items = draw(16)
    alone = umcm(user[:1], items[:1])
    order = np.concatenate([[0], 1 + np.random.default_rng(1).permutation(15)])
    for rows in (np.arange(16), order):
        together = umcm(user[rows], items[rows])
        np.testing.assert_allclose(together.fused[:1], alone.fused, atol=1e-6)
        np.testing.assert_allclose(together.weights[:1], alone.weights, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_sum_to_one_and_skip_missing_modalities(name):
    umcm = build(name)
    user, items = draw(16)
    present = np.random.default_rng(2).random((16, 4)) < 0.6
    present[0] = False
    present[1] = True
    broken = jnp.where(present[..., None], items, jnp.nan)

    def total(user, items):
        fused, weights = umcm(user, items, jnp.asarray(present))
        return fused.sum(), (fused, weights)

    # Row 0 has nothing: it counts as having the first modality alone, whatever that holds.
    broken = broken.at[0, 0].set(items[0, 0])
    measured = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, (fused, weights)), gradients = measured(user, broken)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert (np.asarray(weights)[1:][~present[1:]] == 0).all()
    np.testing.assert_allclose(weights[0], [1, 0, 0, 0])
    assert np.isfinite(fused).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    full = umcm(user[1:2], items[1:2])
    np.testing.assert_allclose(fused[1:2], full.fused, atol=1e-6)


def test_missing_everywhere_equals_a_fusion_without_that_modality():
    user, items = draw(5)
    present = jnp.asarray([[True, True, False, True]] * 5)
    kept = items[:, jnp.array([0, 1, 3])]
    with_mask = build("attention")(user, items, present)
    np.testing.assert_allclose(
        with_mask.fused, build("attention", modalities=3)(user, kept).fused, atol=1e-6
    )


def test_mixture_matches_its_definition():
    umcm = build("both")
    user, items = draw(6)
    senet = umcm.experts["expert_0"](user, items)
    attention = jax.nn.softmax(jnp.einsum("bd,bmd->bm", user, items), axis=-1)
    outputs = jnp.stack(
        [jnp.einsum("bm,bmd->bd", senet, items) / 4, jnp.einsum("bm,bmd->bd", attention, items)], 1
    )
    gates = jax.nn.softmax(jnp.einsum("bd,bed->be", user, outputs), axis=-1)
    fusion = umcm(user, items)
    np.testing.assert_allclose(fusion.fused, jnp.einsum("be,bed->bd", gates, outputs), atol=1e-6)
    # The weights are the shares of the modalities in that very vector.
    rebuilt = jnp.einsum("bm,bmd->bd", fusion.weights, items)
    scale = (gates * jnp.array([0.25, 1.0])).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fusion.fused, rebuilt * scale, atol=1e-6)


def test_three_attention_experts_equal_one_at_inference():
    user, items = draw(6)
    three = UMCM(UMCMConfig("mixture", ("attention",) * 3), 8, 4, 8, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(
        three(user, items).fused, build("attention")(user, items).fused, atol=1e-6
    )


@pytest.mark.parametrize("name", ["attention", "three"])
def test_dropout_changes_the_fused_vector_not_the_weights(name):
    umcm = build(name)
    user, items = draw(32)
    plain = umcm(user, items)
    dropped = umcm(user, items, train=True, key=jax.random.key(0))
    assert not np.allclose(plain.fused, dropped.fused)
    np.testing.assert_allclose(dropped.weights.sum(axis=1), 1.0, atol=1e-6)
    if name == "attention":
        np.testing.assert_array_equal(plain.weights, dropped.weights)
    with pytest.raises(ValueError, match="pass key="):
        umcm(user, items, train=True)


def test_static_weights_are_the_same_for_everyone_and_learn():
    umcm = build("static")
    user, items = draw(5)
    weights = np.asarray(umcm(user, items).weights)
    assert (weights == weights[0]).all()
    graph, params = nnx.split(umcm)
    gradient = jax.grad(lambda p: nnx.merge(graph, p)(user, items).fused.sum())(
        nnx.to_pure_dict(params)
    )
    assert np.abs(gradient["logits"]).max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "atention"}, "'atention', expected one of attention, senet, mixture, static"),
        ({"kind": "mixture", "experts": ("senet", "dot")}, "'dot', expected one of attention"),
        ({"kind": "mixture", "experts": ()}, "at least one"),
        ({"dropout": 1.0}, "0 <= rate < 1"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        UMCMConfig(**arguments)


def test_attention_needs_equal_widths():
    with pytest.raises(ValueError, match="user width 8 and modality width 6"):
        UMCM(UMCMConfig("attention"), 8, 4, 6, rngs=nnx.Rngs(0))
