"""Visits each distinct row of a table once, whatever number of times a batch names it.

Finding distinct rows by sorting costs more than everything else in an update, so it is done with a
scratch vector:

* ``slot`` is an int32 vector of V entries, kept in the optimiser's state and never cleared;
* ``slot[rows] = 0 .. n-1`` lets the positions that share a row overwrite one another;
* ``rep = slot[rows]`` then is, at every position, the one position that won: a representative
  of its row. Only entries written in this step are read, so old contents do not matter;
* gradients are summed by ``rep``, and only representatives write to the table.

Every access is a gather or a scatter of n rows. On CPUs the representatives are brought together
first, and what follows costs as much as there are distinct rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

Kept = dict[str, Array]
# (table, what is kept of its rows, different rows, their gradients) -> the first two, one step on;
# rows past the table's end do nothing. A bfloat16 table may come as its bits, uint16.
Step = Callable[[Array, Kept, Array, Array], tuple[Array, Kept]]

# Rows that a CPU visits at a time; their gradients of 16 numbers take half of an L2 cache.
_PART = 8192


def visit(
    step: Step,
    table: Shaped[Array, "V _"],
    kept: Kept,
    slot: Int[Array, " V"],
    rows: Int[Array, " n"],
    gradients: Float[Array, "n D"],
) -> tuple[Shaped[Array, "V _"], Kept, Int[Array, " V"]]:
    """Takes a step on the rows that a batch names.

    Args:
        step: What is done with different rows.
        table: As stored_rows.stored gives it.
        kept: What the optimiser keeps of every row, [V] or [V, D].
        slot: int32 [V], of any contents.
        rows: int32 [n]; duplicates are allowed, those from V on do nothing.
        gradients: float32 [n, D], one for each of ``rows``.

    Returns:
        The table, what is kept of it, and the slots.
    """
    n = rows.shape[0]
    slot = slot.at[rows].set(jnp.arange(n, dtype=jnp.int32), mode="drop")
    representative = slot.at[rows].get(mode="fill", fill_value=n)
    # On GPUs a loop whose length depends on the batch would wait for the host.
    table, kept = jax.lax.platform_dependent(
        *(table, kept, rows, representative, gradients),
        cpu=functools.partial(_in_parts, step),
        default=functools.partial(_at_once, step),
    )
    return table, kept, slot


def _at_once(
    step: Step, table: Array, kept: Kept, rows: Array, rep: Array, gradients: Array
) -> tuple[Array, Kept]:
    """One step on n rows, of which the representatives alone are rows of the table."""
    position = jnp.arange(rows.shape[0], dtype=jnp.int32)
    gradient = jnp.zeros_like(gradients).at[rep].add(gradients, mode="drop")
    # Everyone but the representatives points past the end, each to a place of its own: scatters
    # see no index twice, which spares them their slow, ordered path.
    target = jnp.where(rep == position, rows, table.shape[0] + position)
    return step(table, kept, target, gradient)


def _in_parts(
    step: Step, table: Array, kept: Kept, rows: Array, rep: Array, gradients: Array
) -> tuple[Array, Kept]:
    """Distinct rows are brought together, and visited in parts that the caches hold.

    A batch by Zipf's law names each row several times: on CPUs arithmetic on places that hold no
    row, and their way to memory and back, cost more than bringing the others together.
    """
    (n, width), (height, _) = gradients.shape, table.shape
    is_row = rep == jnp.arange(n, dtype=jnp.int32)
    rank = jnp.cumsum(is_row, dtype=jnp.int32) - 1
    part = min(n, _PART)
    size = -(-min(n, height) // part) * part
    place = rank.at[rep].get(mode="fill", fill_value=size)
    gradient = _sums(gradients, place, size)
    # Those that share a row write the same.
    distinct = jnp.zeros(size, jnp.int32).at[place].set(rows, mode="drop")
    lane, count = jnp.arange(part, dtype=jnp.int32), rank[-1] + 1

    def body(carry: Any) -> Any:
        start, table, kept = carry
        found = jax.lax.dynamic_slice(distinct, (start,), (part,))
        target = jnp.where(start + lane < count, found, height + lane)
        summed = jax.lax.dynamic_slice(gradient, (start, 0), (part, width))
        return start + part, *step(table, kept, target, summed)

    # XLA writes no bfloat16 on CPUs: it would turn the whole table into float32 and back in every
    # round. Their bits it does write, and turns the table into those once.
    stored = table
    if table.dtype == jnp.bfloat16:
        stored = jax.lax.bitcast_convert_type(table, jnp.uint16)
    _, stored, kept = jax.lax.while_loop(lambda carry: carry[0] < count, body, (0, stored, kept))
    if table.dtype == jnp.bfloat16:
        stored = jax.lax.bitcast_convert_type(stored, jnp.bfloat16)
    return stored, kept


def _sums(values: Array, place: Array, size: int) -> Array:
    """[size, D] sums of the values [n, D] that share a place; those past the end are left out."""
    # Of `zeros.at[place].add(values)` XLA would first make a copy of the values, to bring them into
    # this form.
    numbers = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0,)
    )
    zeros, mode = jnp.zeros((size, values.shape[1])), jax.lax.GatherScatterMode.FILL_OR_DROP
    return jax.lax.scatter_add(zeros, place[:, None], values[:, None], numbers, mode=mode)
