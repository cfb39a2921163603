"""3 x 3 max-pooling of stride 2 with a gradient that is fast on CPUs too."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Float[Array, "B H W C"], pads: Pads) -> Float[Array, "B h w C"]:
    """Largest value of each window; beyond the edge is minus infinity.

    Args:
        x: Any float type.
        pads: Positions added before and after, for height and width; 0 or 1 each.

    The gradient goes to the first of equal values in a window, as XLA's own does (drawings have flat
    areas, where all are equal). XLA's select-and-scatter takes ten times as long on a CPU.
    """
    return jax.lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        jax.lax.max,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), *pads, (0, 0)),
    )


def _forward(x: jax.Array, pads: Pads) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x, pads)
    return y, (x, y)


def _backward(pads: Pads, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    x, y = saved
    height, width = y.shape[1:3]
    # All windows together see 2h + 1 rows and 2w + 1 columns of the padded input.
    rows, columns = 2 * height + 1, 2 * width + 1
    (top, _), (left, _) = pads
    room = (
        (0, 0),
        (top, max(rows - top - x.shape[1], 0)),
        (left, max(columns - left - x.shape[2], 0)),
    )
    padded = jnp.pad(x, (*room, (0, 0)), constant_values=-jnp.inf)
    taken = jnp.zeros(y.shape, bool)
    shares = {}
    for i in range(3):
        for j in range(3):
            seen = padded[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
            first = (seen == y) & ~taken
            taken |= first
            shares[i, j] = jnp.where(first, dy, jnp.zeros((), dy.dtype))
    # Window a reaches rows 2a, 2a + 1 and 2a + 2: even rows belong to two windows, odd ones to one.
    by_row = [_interleaved([shares[i, 0], shares[i, 1], shares[i, 2]], axis=2) for i in range(3)]
    whole = _interleaved(by_row, axis=1)
    return (whole[:, top : top + x.shape[1], left : left + x.shape[2]],)


def _interleaved(parts: list[jax.Array], axis: int) -> jax.Array:
    """Sums shares of positions 2a, 2a + 1, 2a + 2 into [..., 2n + 1, ...]."""
    first, middle, last = parts

    def padded(x: jax.Array, before: int, after: int) -> jax.Array:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (before, after)
        return jnp.pad(x, widths)

    even, odd = padded(first, 0, 1) + padded(last, 1, 0), padded(middle, 0, 1)
    both = jnp.stack([even, odd], axis=axis + 1)
    shape = list(even.shape)
    shape[axis] *= 2
    return jax.lax.slice_in_dim(both.reshape(shape), 0, shape[axis] - 1, axis=axis)


max_pool.defvjp(_forward, _backward)
