"""Dense, BatchNorm, dropout and MLP: Keras's numbers, weights of examples, errors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models.layers import MLP, BatchNorm, Dense, check_choice, dropout, product

GOLDEN = Path(__file__).parent / "golden"


def golden_mlp(data):
    mlp = MLP(20, (12, 7), rngs=nnx.Rngs(0), rate=0.0)
    for index in (0, 1):
        block = mlp.layers[f"layer_{index}"]
        block.dense.kernel[...] = data[f"w/k{index}"]
        block.dense.bias[...] = data[f"w/b{index}"]
        block.norm.scale[...] = data[f"w/gamma{index}"]
        block.norm.bias[...] = data[f"w/beta{index}"]
        block.norm.mean[...] = data[f"w/moving_mean{index}"]
        block.norm.var[...] = data[f"w/moving_var{index}"]
    return mlp


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_mlp_matches_keras(mode):
    data = np.load(GOLDEN / f"dnn_{mode}.npz")
    graph, params, stats = nnx.split(golden_mlp(data), nnx.Param, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)

    def apply(params, x):
        mlp = nnx.merge(graph, params, stats)
        y = mlp(x, train=mode == "train")
        return (y * data["ct"]).sum(), (y, nnx.to_pure_dict(nnx.state(mlp, nnx.BatchStat)))

    (_, (y, new)), (gradients, dx) = jax.jit(jax.value_and_grad(apply, (0, 1), has_aux=True))(
        nnx.to_pure_dict(params), jnp.asarray(data["x"])
    )
    np.testing.assert_allclose(y, data["y"], atol=1e-5)
    np.testing.assert_allclose(dx, data["g/x"], atol=1e-5)
    for index in (0, 1):
        layer = gradients["layers"][f"layer_{index}"]
        for name, ours in (
            ("k", layer["dense"]["kernel"]),
            ("b", layer["dense"]["bias"]),
            ("gamma", layer["norm"]["scale"]),
            ("beta", layer["norm"]["bias"]),
        ):
            np.testing.assert_allclose(ours, data[f"g/w/{name}{index}"], atol=1e-5, err_msg=name)
        if mode == "train":
            norm = new["layers"][f"layer_{index}"]["norm"]
            np.testing.assert_allclose(norm["mean"], data[f"after/moving_mean{index}"], atol=1e-6)
            np.testing.assert_allclose(norm["var"], data[f"after/moving_var{index}"], atol=1e-6)


def test_padding_does_not_count_in_the_statistics():
    x = jax.random.normal(jax.random.key(0), (6, 3)) * 3 + 1
    padded = jnp.concatenate([x, jnp.full((2, 3), 1e3)])
    plain, masked = BatchNorm(3), BatchNorm(3)
    expected = plain(x, train=True)
    got = masked(padded, train=True, weight=jnp.array([1.0] * 6 + [0.0] * 2))
    np.testing.assert_allclose(got[:6], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(masked.mean[...], plain.mean[...], rtol=1e-5)
    np.testing.assert_allclose(masked.var[...], plain.var[...], rtol=1e-5)


def test_a_weight_counts_a_row_that_often():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    counts = np.array([1, 3, 2, 1])
    plain, weighted = BatchNorm(3), BatchNorm(3)
    expected = plain(jnp.repeat(x, counts, axis=0), train=True)
    got = weighted(x, train=True, weight=jnp.asarray(counts, jnp.float32))
    np.testing.assert_allclose(jnp.repeat(got, counts, axis=0), expected, atol=1e-5)
    np.testing.assert_allclose(weighted.var[...], plain.var[...], rtol=1e-5)


def test_a_batch_of_padding_leaves_the_statistics():
    norm = BatchNorm(3)
    y = norm(jnp.ones((2, 3)), train=True, weight=jnp.zeros(2))
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(norm.mean[...], np.zeros(3))
    np.testing.assert_array_equal(norm.var[...], np.ones(3))


@pytest.mark.parametrize("rate", [0.5, 0.2])
@pytest.mark.parametrize("width", [4, 64, 100])
def test_dropout_keeps_the_mean(rate, width):
    x = jnp.ones((4000, width))
    y = np.asarray(dropout(x, rate, jax.random.key(3)))
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1 / (1 - rate))}
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.03)
    # Columns are independent coins, not copies of one another.
    assert abs(np.corrcoef(y[:, 0], y[:, 1])[0, 1]) < 0.06
    assert not np.array_equal(y, dropout(x, rate, jax.random.key(4)))


def test_dropout_without_a_key_is_an_error():
    assert dropout(jnp.ones((2, 2)), 0.0, None).sum() == 4
    with pytest.raises(ValueError, match=r"got no key at rate 0\.5"):
        dropout(jnp.ones((2, 2)), 0.5, None)


def test_dense_on_parts_equals_dense_on_their_concatenation():
    dense = Dense(9, 5, rngs=nnx.Rngs(0))
    parts = [jax.random.normal(jax.random.key(i), (4, width)) for i, width in enumerate((2, 4, 3))]
    np.testing.assert_allclose(dense(*parts), dense(jnp.concatenate(parts, 1)), atol=1e-6)
    with pytest.raises(ValueError, match=r"got widths \[2, 4\], expected a sum 9"):
        dense(*parts[:2])


def test_product_has_the_gradients_of_a_matrix_product():
    x = jax.random.normal(jax.random.key(0), (7, 6))
    kernel = jax.random.normal(jax.random.key(1), (6, 5))
    ours = jax.grad(lambda x, k: jnp.sin(product(x, k)).sum(), (0, 1))(x, kernel)
    plain = jax.grad(lambda x, k: jnp.sin(x @ k).sum(), (0, 1))(x, kernel)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    # Sums are not rounded to what goes into them, on the way back neither.
    long = jnp.ones((1, 257))
    assert float(product(long, long.T, "bfloat16")[0, 0]) == 257
    rows = jnp.ones((1025, 1))
    gradient = jax.grad(lambda k: product(rows, k, "bfloat16").sum())(jnp.ones((1, 1)))
    assert float(gradient[0, 0]) == 1025
    low = product(x, kernel, "bfloat16")
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, x @ kernel, atol=0.1)


def test_initial_scale_is_glorot_uniform():
    kernel = np.asarray(Dense(300, 100, rngs=nnx.Rngs(0)).kernel[...])
    limit = np.sqrt(6 / 400)
    assert 0.98 * limit < np.abs(kernel).max() <= limit


def test_words_outside_the_closed_set_are_refused():
    with pytest.raises(ValueError, match="colour: got 'blu', expected one of red, blue"):
        check_choice("colour", "blu", ("red", "blue"))
    with pytest.raises(ValueError, match="dtype: got 'float16', expected one of float32, bfloat16"):
        Dense(2, 2, rngs=nnx.Rngs(0), dtype="float16")
