import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.pooling import max_pool


def reference(x, pads):
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), *pads, (0, 0))
    )


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (2, 2)])
@pytest.mark.parametrize("pads", [((1, 1), (1, 1)), ((0, 1), (0, 1))])
def test_values_and_gradients_are_xlas_ties_included(size, pads):
    drawn = jax.random.normal(jax.random.key(sum(size)), (3, *size, 4))
    for x in (drawn, jnp.round(2 * drawn), jnp.zeros_like(drawn)):
        y, back = jax.vjp(lambda x: max_pool(x, pads), x)
        expected, expected_back = jax.vjp(lambda x: reference(x, pads), x)
        np.testing.assert_array_equal(y, expected)
        dy = jax.random.normal(jax.random.key(1), y.shape)
        np.testing.assert_allclose(back(dy)[0], expected_back(dy)[0], rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_its_type():
    x = jax.random.normal(jax.random.key(2), (1, 6, 6, 2)).astype(jnp.bfloat16)
    dx = jax.grad(lambda x: max_pool(x, ((1, 1), (1, 1))).astype(jnp.float32).sum())(x)
    assert dx.dtype == jnp.bfloat16
    assert float(dx.sum()) == 9 * 2
