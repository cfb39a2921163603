import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig, pool_tokens
from umair_jax.models.transformer import Packing

SMALL = {"vocabulary": 30, "layers": 1, "width": 8, "heads": 2, "ffn": 16, "max_positions": 10}


@pytest.mark.parametrize(
    ("kind", "expected"), [("mean", [2.0, 3.0]), ("cls", [1.0, 4.0]), ("max", [3.0, 4.0])]
)
def test_pooling_counts_real_tokens_only(kind, expected):
    hidden = jnp.array([[[1.0, 4.0], [3.0, 2.0], [99.0, 99.0]], [[5.0, 5.0]] * 3])
    mask = jnp.array([[True, True, False], [False, False, False]])
    np.testing.assert_allclose(pool_tokens(hidden, mask, kind), [expected, [0.0, 0.0]])


def test_vectors_are_scaled_where_asked():
    tokens, mask = jnp.arange(6).reshape(2, 3), jnp.ones((2, 3), bool)
    options = {**SMALL, "output": 12, "activation": "identity"}
    plain = TextEncoder(TextEncoderConfig(**options), rngs=HostDraws(0))(tokens, mask)
    scaled = TextEncoder(TextEncoderConfig(**options, normalise=True), rngs=HostDraws(0))
    lengths = jnp.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(scaled(tokens, mask), plain / lengths, rtol=1e-5, atol=1e-6)


def test_dense_layer_is_optional():
    tokens, mask = jnp.arange(6).reshape(2, 3), jnp.ones((2, 3), bool)
    with_dense = TextEncoder(TextEncoderConfig(**SMALL, output=12), rngs=HostDraws(0))
    without = TextEncoder(TextEncoderConfig(**SMALL, output=0), rngs=HostDraws(0))
    pooled = without(tokens, mask)
    assert pooled.shape == (2, 8)
    np.testing.assert_allclose(with_dense.pool(tokens, mask), pooled, rtol=1e-6)
    kernel, bias = with_dense.dense.kernel[...], with_dense.dense.bias[...]
    np.testing.assert_allclose(
        with_dense(tokens, mask), jnp.tanh(pooled @ kernel + bias), rtol=1e-5, atol=1e-6
    )


def test_distiluse_size_by_shape():
    cfg = TextEncoderConfig(vocabulary=119_547, layers=6, width=768, heads=12, ffn=3072)
    model = nnx.eval_shape(lambda: TextEncoder(cfg, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state))
    assert count == 134_734_080 + 768 * 512 + 512  # multilingual DistilBERT and the dense layer
    tokens = jax.ShapeDtypeStruct((4, 128), jnp.int32)
    mask = jax.ShapeDtypeStruct((4, 128), jnp.bool_)
    y = jax.eval_shape(lambda state, t, m: nnx.merge(graph, state)(t, m), state, tokens, mask)
    assert y.shape == (4, 512)


def test_untrained_vectors_tell_shared_words():
    cfg = TextEncoderConfig(vocabulary=200, max_positions=16)
    model = TextEncoder(cfg, rngs=HostDraws(0))
    tokens = jnp.array([[2, 10, 11, 12, 3], [2, 12, 10, 99, 3], [2, 50, 51, 52, 3]])
    vectors = np.asarray(model(tokens, jnp.ones((3, 5), bool)))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="output"):
        TextEncoderConfig(output=-1)
    with pytest.raises(ValueError, match="divisor"):
        TextEncoderConfig(heads=7)
    with pytest.raises(ValueError, match="pooling"):
        TextEncoderConfig(pooling="sum")
    with pytest.raises(ValueError, match="activation"):
        TextEncoderConfig(activation="sine")


TEXTS = [[2, 5, 6, 3], [2, 7, 3], [2, 8, 9, 10, 3], [2, 3]]
TOKENS = jnp.array([[2, 5, 6, 3, 2, 7, 3, 0], [2, 3, 2, 8, 9, 10, 3, 0], [0] * 8])
PACKING = Packing(
    slot=jnp.array([[0, 0, 0, 0, 1, 1, 1, -1], [3, 3, 2, 2, 2, 2, 2, -1], [-1] * 8]),
    position=jnp.array([[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 0, 1, 2, 3, 4, 0], [0] * 8]),
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token_types": 2},
        {"pooling": "cls", "position_offset": 2},
        {"pooling": "max", "relative_buckets": 8, "normalise": True},
    ],
)
def test_a_packed_text_has_the_vector_that_it_has_alone(options):
    cfg = TextEncoderConfig(**SMALL, output=12, position_std=0.5, **options)
    model = TextEncoder(cfg, rngs=HostDraws(0))
    alone = [model(jnp.array([text]), jnp.ones((1, len(text)), bool))[0] for text in TEXTS]
    for parts in (1, 2):
        packed = jax.jit(functools.partial(model.packed, count=5, parts=parts))(TOKENS, PACKING)
        np.testing.assert_allclose(packed[:4], alone, rtol=1e-5, atol=1e-6)
        assert np.isfinite(packed[4]).all()  # a slot without tokens


@pytest.mark.parametrize("parts", [2, 3])
def test_a_gradient_cache_changes_neither_loss_nor_gradient(parts):
    model = TextEncoder(TextEncoderConfig(**SMALL, dropout=0.0), rngs=HostDraws(0))
    graph, state = nnx.split(model)
    target = jax.random.normal(jax.random.key(0), (5, 512))

    def loss(state, parts):
        vectors = nnx.merge(graph, state).packed(TOKENS, PACKING, 5, parts, train=True)
        return jnp.sum(vectors @ target.T)  # every text against every other

    measured = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    whole, slope = measured(state, 1)
    cached, again = measured(state, parts)
    assert float(cached) == pytest.approx(float(whole), rel=1e-5)
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_gradient_cache_keeps_one_part_of_the_activations():
    cfg = TextEncoderConfig(vocabulary=30, layers=4, width=64, heads=4, ffn=256, dropout=0.0)
    graph, state = nnx.split(TextEncoder(cfg, rngs=HostDraws(0)))
    tokens = jnp.ones((64, 32), jnp.int32)
    slot = jnp.broadcast_to(jnp.arange(64)[:, None], (64, 32))
    packing = Packing(slot, jnp.broadcast_to(jnp.arange(32), (64, 32)))

    def memory(parts):
        def loss(state):
            vectors = nnx.merge(graph, state).packed(tokens, packing, 64, parts, train=True)
            return jnp.square(vectors).sum()

        compiled = jax.jit(jax.grad(loss)).lower(state).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(8) < memory(1) / 3
