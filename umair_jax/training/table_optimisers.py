"""Embedding tables: look-up and update at a cost that does not depend on the number of rows.

A step touches the n rows that its batch names (n = B x fields), out of V. The update must visit
each *distinct* row once, with the gradients of its duplicates summed; distinct_rows.py finds and
visits them. With a donated state the table is written in place.

On several devices the rows of a table are spread over all axes of the mesh. A look-up gathers the
batch's row numbers on every device, reads the rows it owns, and sums them to where the examples
are; an update gathers row numbers and gradients and writes the rows it owns. Traffic is
proportional to n x D.

A table may be kept in bfloat16 or int8, see stored_rows.py. XLA has no bfloat16 scatter on CPUs:
there alone, an update of such a table passes over all of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from umair_jax.training import distinct_rows, stored_rows

NAMES = ("rowwise_adagrad", "adagrad", "adam", "sgd")

TableState = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class TableOptimConfig:
    """How embedding tables learn.

    Attributes:
        name: ``rowwise_adagrad`` (one accumulator a row), ``adagrad`` (one a weight), ``adam``
            (moments decay only on rows that a step touches, bias correction by the global step)
            or ``sgd``.
        learning_rate: peak rate; follows the schedule of the rest of the network.
        l2: strength of ``l2 / 2 * ||row||^2``, applied once per step to each row that is touched.
        initial_accumulator: start value of Adagrad's accumulators.
        b1: decay of Adam's first moment.
        b2: decay of Adam's second moment.
        eps: added under Adagrad's square root, or to Adam's denominator.
        dtype: ``float32``, or ``bfloat16`` or ``int8`` (with a float32 scale a row) with
            stochastic rounding: of the tables; what the optimiser keeps is float32.
    """

    name: str = "rowwise_adagrad"
    learning_rate: float = 0.05
    l2: float = 0.0
    initial_accumulator: float = 0.1
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-7
    dtype: str = "float32"

    def __post_init__(self) -> None:
        """Checks the name and the ranges."""
        if self.name not in NAMES:
            raise ValueError(
                f"unknown table optimiser {self.name!r}; allowed: {', '.join(sorted(NAMES))}"
            )
        if self.dtype not in stored_rows.DTYPES:
            raise ValueError(
                f"tables: unknown dtype {self.dtype!r}; allowed: {', '.join(stored_rows.DTYPES)}"
            )
        if self.learning_rate <= 0:
            raise ValueError(f"tables: learning_rate must be above 0, got {self.learning_rate}")
        if self.l2 < 0:
            raise ValueError(f"tables: l2 must be 0 or more, got {self.l2}")


def init_table(table: Shaped[Array, "V _"], config: TableOptimConfig) -> TableState:
    """State of one table's optimiser: ``slot`` int32 [V] and the accumulators, float32."""
    shape = table.shape[0], stored_rows.width(table)
    state: TableState = {"slot": jnp.zeros(shape[:1], jnp.int32)}
    if config.name == "rowwise_adagrad":
        state["accumulator"] = jnp.full(shape[:1], config.initial_accumulator, jnp.float32)
    elif config.name == "adagrad":
        state["accumulator"] = jnp.full(shape, config.initial_accumulator, jnp.float32)
    elif config.name == "adam":
        state["first"] = jnp.zeros(shape, jnp.float32)
        state["second"] = jnp.zeros(shape, jnp.float32)
    return state


def gather_rows(
    table: Shaped[Array, "V _"], rows: Int[Array, "*n"], mesh: Mesh | None = None
) -> Float[Array, "*n D"]:
    """Rows of a table, wherever the mesh keeps them.

    Args:
        table: As :func:`stored_rows.stored` gives it, rows spread over all axes of ``mesh``.
        rows: int [...] in ``[0, V)``; the first axis is the batch (spread over ``data``) when the
            axis divides it.
        mesh: None, or a mesh with the axes ``data`` and ``model``.

    Returns:
        float32 [..., D].
    """
    if mesh is None or mesh.size == 1:
        return stored_rows.opened(table.at[rows].get(mode="promise_in_bounds"))
    flat = rows.reshape(-1)
    batch = _batch_spec(rows, mesh)
    scattered = batch == P("data")

    def look_up(block: Array, flat: Array) -> Array:
        if scattered:
            flat = jax.lax.all_gather(flat, "data", tiled=True)
        local = _local_rows(flat, block.shape[0])
        found = block.at[local].get(mode="fill", fill_value=0)
        # Each row is held by exactly one device: the sum over devices is the row itself.
        if scattered:
            found = jax.lax.psum_scatter(found, "data", tiled=True)
        else:
            found = jax.lax.psum(found, "data")
        return jax.lax.psum(found, "model")

    found = jax.shard_map(
        look_up, mesh=mesh, in_specs=(P(("data", "model")), batch), out_specs=batch
    )(table, flat)
    return stored_rows.opened(found).reshape(*rows.shape, stored_rows.width(table))


def update_table(
    table: Shaped[Array, "V _"],
    state: TableState,
    rows: Int[Array, "*n"],
    gradients: Float[Array, "*n D"],
    rate: Float[Array, ""] | float,
    step: Int[Array, ""] | int,
    config: TableOptimConfig,
    mesh: Mesh | None = None,
) -> tuple[Shaped[Array, "V _"], TableState]:
    """One optimiser step on the rows that a batch names.

    Args:
        table: As :func:`stored_rows.stored` gives it.
        state: as made by :func:`init_table`.
        rows: int32 [...] in ``[0, V)``, duplicates allowed.
        gradients: float [..., D], one for each entry of ``rows``; duplicates are summed.
        rate: learning rate of this step.
        step: updates made so far, 0 for the first.
        config: the optimiser.
        mesh: None, or the mesh over whose axes the rows of table and state are spread.

    Returns:
        The table and its state after the step.
    """
    width = stored_rows.width(table)
    flat, flat_gradients = rows.reshape(-1), gradients.reshape(-1, width).astype(jnp.float32)
    rate, step = jnp.asarray(rate, jnp.float32), jnp.asarray(step, jnp.int32)
    if mesh is None or mesh.size == 1:
        return _update_block(table, state, flat, flat_gradients, rate, step, config)
    batch = _batch_spec(rows, mesh)

    def update(block: Array, state: TableState, flat: Array, given: Array, rate: Array, step):
        if batch == P("data"):
            flat = jax.lax.all_gather(flat, "data", tiled=True)
            given = jax.lax.all_gather(given, "data", tiled=True)
        local, first = _local_rows(flat, block.shape[0]), _first_row(block.shape[0])
        return _update_block(block, state, local, given, rate, step, config, first)

    spread = P(("data", "model"))
    return jax.shard_map(
        update,
        mesh=mesh,
        in_specs=(spread, spread, batch, batch, P(), P()),
        out_specs=(spread, spread),
        # all_gather's result is the same on every device, which the checker cannot know.
        check_vma=False,
    )(table, state, flat, flat_gradients, rate, step)


def table_config(
    configs: TableOptimConfig | Mapping[str, TableOptimConfig], name: str
) -> TableOptimConfig:
    """The configuration of one table, from one for all or one by name.

    Raises:
        ValueError: a mapping that does not name the table.
    """
    if isinstance(configs, TableOptimConfig):
        return configs
    if name not in configs:
        raise ValueError(f"no optimiser for table {name!r}; given for: {', '.join(configs)}")
    return configs[name]


def _batch_spec(rows: Shaped[Array, "*n"], mesh: Mesh) -> P:
    """Where flat rows live: with the batch if the data axis divides it, else everywhere."""
    return P("data") if rows.ndim and rows.shape[0] % mesh.shape["data"] == 0 else P()


def _first_row(block: int) -> Array:
    """Number of the first row of this device's block of the table."""
    return jax.lax.axis_index(("data", "model")) * block


def _local_rows(rows: Array, block: int) -> Array:
    """Row numbers within this device's block of the table; rows of others point past its end."""
    local = rows - _first_row(block)
    return jnp.where((local >= 0) & (local < block), local, block)


def _update_block(
    table: Array,
    state: TableState,
    rows: Array,
    gradients: Array,
    rate: Array,
    step: Array,
    config: TableOptimConfig,
    first: Array | int = 0,
) -> tuple[Array, TableState]:
    """The update on one block of rows, of which ``first`` is the number of the first.

    Entries of ``rows`` past the block's end do nothing.
    """
    kept = {name: values for name, values in state.items() if name != "slot"}
    descend = functools.partial(_descend, rate=rate, step=step, config=config, first=first)
    table, kept, slot = distinct_rows.visit(descend, table, kept, state["slot"], rows, gradients)
    return table, {**kept, "slot": slot}


def _descend(
    table: Array,
    kept: TableState,
    target: Array,
    gradient: Array,
    rate: Array,
    step: Array,
    config: TableOptimConfig,
    first: Array | int,
) -> tuple[Array, TableState]:
    """A step on different rows; entries of ``target`` past the table's end do nothing."""

    def read(values: Array) -> Array:
        return values.at[target].get(mode="fill", fill_value=0, unique_indices=True)

    def write(values: Array, new: Array) -> Array:
        return values.at[target].set(new, mode="drop", unique_indices=True)

    kept = dict(kept)
    if config.l2:
        gradient = gradient + config.l2 * stored_rows.opened(read(table))
    if config.name == "rowwise_adagrad":
        accumulator = read(kept["accumulator"]) + jnp.mean(gradient**2, axis=-1)
        kept["accumulator"] = write(kept["accumulator"], accumulator)
        change = gradient * jax.lax.rsqrt(accumulator + config.eps)[:, None]
    elif config.name == "adagrad":
        accumulator = read(kept["accumulator"]) + gradient**2
        kept["accumulator"] = write(kept["accumulator"], accumulator)
        change = gradient * jax.lax.rsqrt(accumulator + config.eps)
    elif config.name == "adam":
        mean = config.b1 * read(kept["first"]) + (1 - config.b1) * gradient
        square = config.b2 * read(kept["second"]) + (1 - config.b2) * gradient**2
        kept["first"], kept["second"] = (
            write(kept["first"], mean),
            write(kept["second"], square),
        )
        count = (step + 1).astype(jnp.float32)
        mean, square = mean / (1 - config.b1**count), square / (1 - config.b2**count)
        change = mean / (jnp.sqrt(square) + config.eps)
    else:
        change = gradient
    if table.dtype == jnp.float32:
        table = table.at[target].add(-rate * change, mode="drop", unique_indices=True)
    else:
        new = stored_rows.opened(read(table)) - rate * change
        table = write(table, stored_rows.closed(new, first + target, step, table.dtype.name))
    return table, kept
