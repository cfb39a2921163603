"""What an update of an embedding table costs, by its rows: ours against dense Adam on all of them.

    python -m benchmarks.tables [--rows=1e4,1e6,1e7,1e8] [--batch=8192] [--fields=20] [--width=16]

An update takes the gradients of batch x fields rows (ids by Zipf's law over the whole table), as
the network hands them over: row-wise Adagrad here, finding the distinct rows included, on a donated
state as in the training loop. The peer `dense-adam` adds them up in an array of the table's size
and lets optax.adam visit every row. A step is an update after the look-up of these rows, with the
gradient of 1/2 sum (row - 1)^2. Rounds of all sizes and of the peer take turns. A size that does
not fit into the memory that is free is left out, and said so; so is the peer where it would need
more than that.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks import machine, report
from benchmarks.rounds import Contender
from umair_jax.memory import keep_freed_memory
from umair_jax.training.stored_rows import DTYPES, stored
from umair_jax.training.table_optimisers import (
    TableOptimConfig,
    gather_rows,
    init_table,
    update_table,
)

EXPONENT = 1.05
BATCHES = 8  # different ones, served over and over
# What optimisers keep of a row: slot and accumulator, in bytes; two moments and the gradient, each
# of 4 bytes a weight.
OURS, DENSE = 8, 3
COLUMNS = {
    "case": "table",
    "distinct": "distinct of the ids",
    "ours": "update, ms",
    "against_1e6_rows": "against 1e6 rows",
    "peer": "dense Adam, ms",
    "ratio": "dense / ours",
    "step": "with look-up, ms",
    "peer_step": "dense, ms",
    "step_ratio": "dense / ours",
    "memory_gib": "table and optimiser, GiB",
}


class Table:
    """A table in training; its batches are used over and over."""

    def __init__(self, rows: int, width: int, ids: list[np.ndarray], dtype: str = "float32"):
        self.ids, self.done = ids, 0
        # Compiled, or the steps on the way to an int8 table would each be an array of floats.
        self.table = jax.jit(lambda: stored(jnp.zeros((rows, width)), dtype))()
        self.given = jax.random.normal(jax.random.key(0), (*ids[0].shape, width))
        self.state: Any = None
        self._update = jax.jit(self._updated, donate_argnums=(0, 1))
        self._step = jax.jit(self._stepped, donate_argnums=(0, 1))

    def _updated(self, table: Array, state: Any, ids: Array, step: Array, given: Array) -> Any:
        raise NotImplementedError

    def _stepped(self, table: Array, state: Any, ids: Array, step: Array) -> Any:
        return self._updated(table, state, ids, step, gather_rows(table, ids) - 1.0)

    def _dispatch(self, work: Any, *given: Array) -> Any:
        ids = self.ids[self.done % len(self.ids)]
        self.table, self.state = work(self.table, self.state, ids, self.done, *given)
        self.done += 1
        return self.table, self.state

    def update(self) -> Any:
        """Dispatches an update with gradients that are there."""
        return self._dispatch(self._update, self.given)

    def step(self) -> Any:
        """Dispatches a look-up and an update."""
        return self._dispatch(self._step)


class Ours(Table):
    """Lazy updates."""

    def __init__(self, rows: int, width: int, ids: list[np.ndarray], config: TableOptimConfig):
        super().__init__(rows, width, ids, config.dtype)
        self.config = config
        self.state = init_table(self.table, config)

    def _updated(self, table: Array, state: Any, ids: Array, step: Array, given: Array) -> Any:
        return update_table(table, state, ids, given, 0.01, step, self.config)


class Dense(Table):
    """The gradient as an array of the table's size, and optax.adam on all rows."""

    def __init__(self, rows: int, width: int, ids: list[np.ndarray]):
        super().__init__(rows, width, ids)
        self.optimiser = optax.adam(0.01)
        self.state = self.optimiser.init(self.table)

    def _updated(self, table: Array, state: Any, ids: Array, step: Array, given: Array) -> Any:
        changes, state = self.optimiser.update(jnp.zeros_like(table).at[ids].add(given), state)
        return optax.apply_updates(table, changes), state


def ids_of(rows: int, batch: int, fields: int, seed: int = 0) -> list[np.ndarray]:
    """Batches of ids int32 [batch, fields], frequent by Zipf's law, anywhere in the table."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(BATCHES):
        # The inverse of the law's distribution function, as if ranks were continuous.
        u, power = rng.random((batch, fields)), 1 - EXPONENT
        rank = ((1 - u) + u * float(rows) ** power) ** (1 / power) - 1
        # A prime factor sends frequent ids, which have low ranks, all over the table.
        place = np.minimum(rank.astype(np.int64), rows - 1) * 0x9E3779B1 % rows
        found.append(place.astype(np.int32))
    return found


def measure(
    sizes: list[int], batch: int, fields: int, width: int, rounds: int, dtype: str
) -> list[dict[str, Any]]:
    """One result for each size, with the peer's where it fits."""
    config = TableOptimConfig(dtype=dtype)
    contenders: dict[tuple[str, str, int], Contender] = {}
    distinct: dict[int, float] = {}
    left = machine.free_bytes() * 0.9
    row_bytes = stored(jnp.zeros((1, width)), dtype).nbytes + OURS
    for rows in sizes:
        ids = ids_of(rows, batch, fields)
        distinct[rows] = float(np.mean([len(np.unique(part)) / part.size for part in ids]))
        for name, needed in (
            ("ours", rows * row_bytes),
            # Its step makes a new gradient and new moments before the old ones go.
            ("dense-adam", rows * width * 4 * (1 + 2 * DENSE)),
        ):
            if needed > left or (name == "dense-adam" and rows > 1e7):
                machine.progress(f"{name}, {rows:,} rows: {needed / 2**30:.1f} GiB; left out")
                continue
            left -= needed
            machine.progress(f"{name}, {rows:,} rows")
            table = Ours(rows, width, ids, config) if name == "ours" else Dense(rows, width, ids)
            for part, work in (("update", table.update), ("step", table.step)):
                made = Contender(name, work, jax.block_until_ready, batch, 0.5)
                contenders[name, part, rows] = made
    for number in range(rounds):
        machine.progress(f"round {number + 1} of {rounds}")
        for contender in contenders.values():
            contender.round()
    found = []

    def milliseconds(name: str, part: str, rows: int) -> float | None:
        contender = contenders.get((name, part, rows))
        return contender.seconds * 1e3 if contender else None

    def ratio(above: float | None, below: float | None) -> float | None:
        return above / below if above is not None and below is not None else None

    for rows in [rows for rows in sizes if ("ours", "update", rows) in contenders]:
        ours, like = (milliseconds("ours", "update", n) for n in (rows, 10**6))
        dense, step = milliseconds("dense-adam", "update", rows), milliseconds("ours", "step", rows)
        dense_step = milliseconds("dense-adam", "step", rows)
        row = {
            "bench": "tables",
            "part": f"{dtype}, batch {batch:,}",
            "case": f"{rows:,} rows",
            "distinct": distinct[rows],
            "ours": ours,
            "peer": dense,
            "peer_name": "dense-adam",
            "ratio": ratio(dense, ours),
            "step": step,
            "peer_step": dense_step,
            "step_ratio": ratio(dense_step, step),
            "unit": "ms; ratio: peer / ours",
            "against_1e6_rows": ratio(ours, like),
            "memory_gib": rows * row_bytes / 2**30,
            "batch": batch,
            "fields": fields,
            "width": width,
        }
        found.append(row | machine.describe())
        report.emit(found[-1])
    return found


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Parses the arguments, measures and reports; returns the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1e4,1e5,1e6,1e7,1e8", help="sizes of the table")
    parser.add_argument("--batch", type=int, default=8192, help="examples a step")
    parser.add_argument("--fields", type=int, default=20, help="ids of an example")
    parser.add_argument("--width", type=int, default=16, help="weights of a row")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of our table")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "tables.jsonl")
    given = parser.parse_args(arguments)
    sizes = [int(float(text)) for text in given.rows.split(",")]
    rows = measure(sizes, given.batch, given.fields, given.width, given.rounds, given.dtype)
    report.write(rows, given.out)
    report.show("An update of a table", rows, COLUMNS)
    return rows


if __name__ == "__main__":
    keep_freed_memory()
    main()
