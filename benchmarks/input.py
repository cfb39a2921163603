"""How many examples a second the input pipeline delivers, against other ways to read columns.

    python -m benchmarks.input            (make bench-input)

Columns of interactions in memory, as tasks/bookmarks reads them, shuffled anew each epoch, batches
in order, read ahead by two threads. Peers, in the same run, their rounds between ours:

    grain     grain.MapDataset over the same columns, one record at a time: shuffle, map, batch
    pyarrow   Table.take of a permutation, a batch at a time; columns come out as NumPy arrays
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pyarrow as pa

from benchmarks import machine, report
from umair_jax.data.batches import BatchSource

THREADS, PREFETCH = 2, 8

Batches = Iterator[dict[str, np.ndarray]]


def made_up_columns(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """16 bytes an interaction: ids, label, three counted fields."""
    rng = np.random.default_rng(seed)

    def ids(size: int) -> np.ndarray:
        return rng.integers(0, size, rows, dtype=np.int32)

    columns = {"user": ids(100_000), "item": ids(1_000_000), "state": ids(max(rows // 2, 1))}
    small = {"label": 2, "total_bookmarks": 10, "total_view": 10, "bookmark_rate": 10}
    return columns | {name: rng.integers(0, n, rows, dtype=np.int8) for name, n in small.items()}


class _Records:
    """The columns as grain's random access source: one record an example."""

    def __init__(self, columns: dict[str, np.ndarray], index: np.ndarray | None) -> None:
        self._columns, self._index = columns, index
        self._length = len(next(iter(columns.values())) if index is None else index)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, k: int) -> tuple:
        k = k if self._index is None else self._index[k]
        return tuple(column[k] for column in self._columns.values())


def grain_batches(columns: dict, index: np.ndarray | None, batch_size: int) -> Batches:
    """Record by record through grain, without end.

    Without threads: they would wait for one another's Python, and more of them were never faster.
    """
    names = list(columns)
    records = grain.MapDataset.source(_Records(columns, index)).seed(0).shuffle()
    examples = records.map(lambda record: dict(zip(names, record, strict=True)))
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(examples.repeat().batch(batch_size).to_iter_dataset(options))


def pyarrow_batches(columns: dict, index: np.ndarray | None, batch_size: int) -> Batches:
    """Rows of a pyarrow table, a batch at a time, without end; no threads."""
    table = pa.table(columns)
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(table.num_rows if index is None else index)
        for first in range(0, len(order) - batch_size + 1, batch_size):
            rows = table.take(pa.array(order[first : first + batch_size]))
            yield {name: rows.column(name).to_numpy() for name in columns}


PEERS: dict[str, Callable[[dict, np.ndarray | None, int], Batches]] = {
    "grain": grain_batches,
    "pyarrow": pyarrow_batches,
}


def run(rows: int, batch_size: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measures every case.

    Args:
        rows: Interactions.
        batch_size: Examples a batch.
        rounds: Rounds of each reader; the figures are medians over them.
        seconds: Shortest length of a round; a slow peer reads one batch at least.

    Returns:
        One result for each case and peer.
    """
    about = machine.describe()
    columns = made_up_columns(rows)
    train = np.flatnonzero(np.random.default_rng(1).random(rows) < 0.8)
    results = []
    for case, index in (("all interactions", None), ("training split, 80 %", train)):
        began = time.perf_counter()
        source = BatchSource(columns, batch_size, index=index)
        source.batch(0)  # orders the first epoch
        ordering = time.perf_counter() - began
        readers = {"ours": source.iterate(threads=THREADS, prefetch=PREFETCH)}
        readers |= {name: peer(columns, index, batch_size) for name, peer in PEERS.items()}
        machine.progress(f"{case}: {', '.join(readers)}")
        usage = {name: machine.Usage() for name in readers}
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for reader in readers.values():
            next(reader)
        for _ in range(rounds):
            for name, reader in readers.items():
                read, until = 0, time.perf_counter() + seconds
                with usage[name].round():
                    # What was read ahead between rounds is a few batches of hundreds.
                    while not read or time.perf_counter() < until:
                        read += len(next(reader)["label"])
                rates[name].append(read / usage[name].seconds[-1])
        medians = {name: float(np.median(values)) for name, values in rates.items()}
        for peer in PEERS:
            row = {
                "bench": "input",
                "case": case,
                "ours": medians["ours"],
                "peer": medians[peer],
                "ratio": medians["ours"] / medians[peer],
                "unit": "examples/s",
                "peer_name": peer,
                "rows": rows,
                "batch_size": batch_size,
                "examples_per_cpu_second": sum(
                    rate * wall
                    for rate, wall in zip(rates["ours"], usage["ours"].seconds, strict=True)
                )
                / usage["ours"].cpu_seconds,
                "epoch_order_seconds": ordering,
                "foreign_cpu_share": usage["ours"].foreign_share,
                **about,
            }
            results.append(row)
            report.emit(row)
    return results


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="interactions")
    parser.add_argument("--batch_size", type=int, default=8192, help="examples a batch")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each reader")
    parser.add_argument("--seconds", type=float, default=1.0, help="shortest length of a round")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS / "input.jsonl", help="file to write"
    )
    options = parser.parse_args(argv)
    results = run(options.rows, options.batch_size, options.rounds, options.seconds)
    report.write(results, options.out)
    report.show(
        "Input pipeline, examples a second",
        results,
        {
            "case": "case",
            "ours": "ours",
            "peer_name": "peer",
            "peer": "its rate",
            "ratio": "ratio",
            "foreign_cpu_share": "foreign CPU",
        },
    )
    return results


if __name__ == "__main__":
    main()
