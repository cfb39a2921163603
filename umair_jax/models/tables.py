"""Stacked tables: many small embedding tables as blocks of one array per width."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from umair_jax.models.layers import check_choice

ROWS_MULTIPLE = 1024
INITS = ("glorot_uniform", "zeros")


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """One stacked table.

    Attributes:
        name: Its key among the parameters, such as "embedding" or "wide".
        rows: Rows in use, row 0 (the unknown value) counted; the array is padded to a multiple
            of 1,024, whatever the number of devices.
        width: D.
        blocks: (first row, rows) of the tables stacked in it; empty = one block, all but row 0.
        init: "glorot_uniform", each block by its own number of rows (as if each were a Keras
            layer on one-hots: the larger the table, the smaller its values), or "zeros".
    """

    name: str
    rows: int
    width: int
    blocks: tuple[tuple[int, int], ...] = ()
    init: str = "glorot_uniform"

    def __post_init__(self):
        check_choice(f"table {self.name} init", self.init, INITS)
        if self.rows < 1 or self.width < 1:
            raise ValueError(
                f"table {self.name}: got {self.rows} rows of width {self.width}, "
                "expected at least 1 each"
            )
        last = 1
        for start, rows in sorted(self.blocks):
            if start < last or rows < 1 or start + rows > self.rows:
                raise ValueError(
                    f"table {self.name}: got a block of {rows} rows at {start}, expected blocks "
                    f"that do not overlap, within rows 1 to {self.rows - 1} (row 0 is the unknown)"
                )
            last = start + rows

    @property
    def padded_rows(self) -> int:
        """Rows of the array: `rows`, rounded up to a multiple of 1,024."""
        return -(-self.rows // ROWS_MULTIPLE) * ROWS_MULTIPLE


def init_table(spec: TableSpec, key: jax.Array) -> Float[Array, "V D"]:
    """Initial values, float32 [padded rows, width]; row 0 and the padding are zero.

    Every element depends on its own position only, so that the result can be made in shards.
    """
    shape = (spec.padded_rows, spec.width)
    if spec.init == "zeros":
        return jnp.zeros(shape, jnp.float32)
    row = jnp.arange(spec.padded_rows)
    limit = jnp.zeros((spec.padded_rows,), jnp.float32)
    for start, rows in spec.blocks or ((1, spec.rows - 1),):
        inside = (row >= start) & (row < start + rows)
        limit = jnp.where(inside, math.sqrt(6.0 / (rows + spec.width)), limit)
    return jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0) * limit[:, None]


def lookup(table: Float[Array, "V D"], rows: Int[Array, "*B"]) -> Float[Array, "*B D"]:
    """Gathers rows. A negative row is the unknown row 0; one past the end is the last row."""
    return jnp.take(table, rows, axis=0, mode="clip")
