"""The training state: one nested dictionary of arrays, created where it will live.

    {"step": int32, "params": {"net": ..., "tables": {name: see stored_rows}},
     "stats": ..., "opt": {"net": ..., "tables": {name: {...}}},
     "ema": {"net": ..., "stats": ...}}                  only where an average is kept

Shapes come first (``jax.eval_shape``), then the rules say where each leaf lives, then one jitted
initialisation writes every leaf in its place: no array ever exists on one device only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from umair_jax.training import sharding, stored_rows
from umair_jax.training.optimisers import Optimiser
from umair_jax.training.table_optimisers import TableOptimConfig, init_table, table_config

State = dict[str, Any]
TableConfigs = TableOptimConfig | Mapping[str, TableOptimConfig]


def initialiser(
    task: Any, optimiser: Optimiser, tables: TableConfigs, seed: int
) -> Callable[[], State]:
    """A function without arguments that builds the state of step 0; made for :func:`create`."""

    def init(key: jax.Array | np.ndarray) -> State:
        made = task.init(jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(key)), 0))
        stored = {
            name: stored_rows.stored(values, table_config(tables, name).dtype)
            for name, values in made["params"].get("tables", {}).items()
        }
        params = {"net": made["params"]["net"], "tables": stored}
        state = {
            "step": jnp.zeros((), jnp.int32),
            "params": params,
            "stats": made.get("stats", {}),
            "opt": {
                "net": optimiser.init(params["net"]),
                "tables": {
                    name: init_table(values, table_config(tables, name))
                    for name, values in params["tables"].items()
                },
            },
        }
        if optimiser.ema_decay:
            # Copies: a donated buffer must not be given twice.
            state["ema"] = jax.tree.map(jnp.copy, {"net": params["net"], "stats": state["stats"]})
        return state

    return jax.tree_util.Partial(init, seed_key(seed))


def seed_key(seed: int) -> np.ndarray:
    """The key of a seed as numbers, to be an argument of what is compiled.

    In place of a constant, so that what is compiled and kept (``jax_compilation_cache_dir``) for
    one seed serves all others.
    """
    return np.asarray(jax.random.key_data(jax.random.key(seed)))


def abstract_state(init: Callable[[], State], mesh: Mesh, rules: sharding.Rules) -> State:
    """The state as shapes, each with its sharding; allocates nothing.

    Raises:
        ValueError: a leaf that cannot be placed (see :func:`sharding.shardings`).
    """
    shapes = jax.eval_shape(init)
    placed = sharding.shardings(shapes, mesh, rules)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        placed,
    )


def shardings_of(abstract: State) -> State:
    """The sharding of every leaf of :func:`abstract_state`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def create(init: Callable[[], State], abstract: State) -> State:
    """The state of step 0 of an :func:`initialiser`, every leaf where its sharding says."""

    def made(init: Callable[[], State]) -> State:
        return init()

    # An argument, not a closure: it carries the seed.
    return jax.jit(made, out_shardings=shardings_of(abstract))(init)


def judged(state: State) -> tuple[dict[str, Any], Any]:
    """Parameters and statistics to evaluate and export: the averaged ones where there are any."""
    params, stats = state["params"], state["stats"]
    if "ema" not in state:
        return params, stats
    return {**params, "net": state["ema"]["net"]}, state["ema"]["stats"]


def count_params(abstract: State) -> int:
    """Number of trained values, padding rows of tables included."""
    params = abstract["params"]
    tables = (table.shape[0] * stored_rows.width(table) for table in params["tables"].values())
    return sum(leaf.size for leaf in jax.tree.leaves(params["net"])) + sum(tables)


def describe(abstract: State) -> str:
    """The sharding table: path, shape, dtype, spec, bytes per device; scalars left out."""
    lines = [
        (path, "x".join(map(str, shape)), dtype, spec, f"{size:,}")
        for path, shape, dtype, spec, size in sharding.table(abstract, shardings_of(abstract))
        if shape
    ]
    head = ("path", "shape", "dtype", "spec", "bytes/device")
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(5)]
    rows = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    ]
    total = sum(size for _, _, _, _, size in sharding.table(abstract, shardings_of(abstract)))
    rows.append(f"{count_params(abstract):,} parameters; state of {total:,} bytes per device")
    return "\n".join(rows)
