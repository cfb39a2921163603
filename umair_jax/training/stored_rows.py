"""The types in which the rows of a table are kept: float32, bfloat16, or int8 with a scale each.

A row of int8 is its numbers divided by their scale, and behind them the scale's four bytes: int8
[V, D + 4], so that whatever moves a row moves its scale along. The scale is the row's largest
absolute value / 127.

An update that is small beside its weight would be lost in rounding to the nearest; rows are rounded
up or down at random instead, so that it counts in the mean. The random numbers are a hash of row,
column and step: the same on every mesh and when a run goes on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

DTYPES = ("float32", "bfloat16", "int8")
_SCALE_BYTES = 4


def stored(values: Float[Array, "V D"], dtype: str) -> Shaped[Array, "V _"]:
    """A new table in one of DTYPES, rounded to the nearest.

    A single int8 would take more than a float32, with its scale: tables of width 1 stay float32.
    """
    if dtype != "int8":
        return values.astype(dtype)
    if values.shape[1] == 1:
        return values
    return _quantised(values, jnp.full(values.shape, 0.5, jnp.float32))


def width(table: Array | jax.ShapeDtypeStruct) -> int:
    """D, the numbers of a row, whatever it is kept in."""
    return table.shape[1] - (_SCALE_BYTES if table.dtype == jnp.int8 else 0)


def opened(rows: Shaped[Array, "*n _"]) -> Float[Array, "*n D"]:
    """Rows of a table as float32; uint16 are bits of bfloat16."""
    if rows.dtype == jnp.uint16:
        rows = jax.lax.bitcast_convert_type(rows, jnp.bfloat16)
    if rows.dtype != jnp.int8:
        return rows.astype(jnp.float32)
    steps, scale = rows[..., :-_SCALE_BYTES], rows[..., -_SCALE_BYTES:]
    scale = jax.lax.bitcast_convert_type(scale, jnp.float32)
    return steps.astype(jnp.float32) * scale[..., None]


def closed(
    values: Float[Array, "n D"], rows: Int[Array, " n"], step: Int[Array, ""], dtype: str
) -> Shaped[Array, "n _"]:
    """Rows in the type of a table, rounded at random.

    Args:
        values: float32 [n, D].
        rows: Their numbers in the whole table, int32 [n].
        step: Of the training, int32.
        dtype: The table's, one of DTYPES; or "uint16", bits of bfloat16.
    """
    if dtype == "float32":
        return values
    noise = _noise(values.shape, rows, step)
    if dtype == "int8":
        return _quantised(values, (noise.astype(jnp.float32) + 0.5) / 2**16)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32) + noise
    rounded = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32)
    # NaN and infinity have no neighbours.
    half = jnp.where(jnp.isfinite(values), rounded, values).astype(jnp.bfloat16)
    return jax.lax.bitcast_convert_type(half, jnp.uint16) if dtype == "uint16" else half


def _quantised(values: Array, threshold: Array) -> Array:
    """int8 [n, D + 4]; a number goes up where what is above the step below exceeds 1 - threshold.

    Of a row with NaN or infinity all numbers become NaN.
    """
    scale = jnp.abs(values).max(axis=1) / 127
    steps = jnp.floor(values / jnp.where(scale > 0, scale, 1)[:, None] + threshold)
    scale = jnp.where(jnp.isfinite(scale), scale, jnp.nan)
    steps = jnp.clip(jnp.nan_to_num(steps), -127, 127).astype(jnp.int8)
    return jnp.concatenate([steps, jax.lax.bitcast_convert_type(scale, jnp.int8)], axis=1)


def _noise(shape: tuple[int, ...], rows: Array, step: Array) -> Array:
    """uint32 below 2^16, for every number of every row."""
    column = jnp.arange(shape[1], dtype=jnp.uint32)
    x = rows.astype(jnp.uint32)[:, None] * jnp.uint32(shape[1]) + column
    # The finaliser of MurmurHash3: every bit of its input changes every bit of the result.
    x = x ^ (step.astype(jnp.uint32) * jnp.uint32(0x9E3779B1))
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return (x ^ (x >> 16)) & jnp.uint32(0xFFFF)
