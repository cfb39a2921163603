"""How long `prepare` takes over a long log, and the most memory that it holds.

    python -m benchmarks.prepare [--interactions=1e8] [--items=1e6] [--users=1e6]
                                                                     (make bench-prepare)

Makes up a folder as docs/data.md describes it, items.parquet and interactions.parquet without
pictures, and prepares it in a process of its own. 1e8 interactions need some 10 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import machine, report

PIECE = 1_000_000
FIRST = 1_600_000_000  # unix seconds


def make_up(folder: Path, items: int, users: int, interactions: int, seed: int = 0) -> None:
    """Writes the folder; the log is not sorted, frequent items and users have low numbers."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    numbers = np.arange(items)
    words = np.array([f"tag {k}" for k in range(5_000)], object)
    table = {
        "illust_id": numbers,
        "title": [f"drawing {k}" for k in numbers],
        "artist": [f"artist {k}" for k in rng.integers(0, items // 10 + 1, items)],
        "tags": [list(t) for t in words[rng.integers(0, len(words), (items, 4))]],
    }
    pq.write_table(pa.table(table), folder / "items.parquet")
    schema = pa.schema(
        {
            "user_id": pa.int64(),
            "illust_id": pa.int64(),
            "timestamp": pa.int64(),
            "label": pa.int8(),
        }
    )
    with pq.ParquetWriter(folder / "interactions.parquet", schema) as writer:
        for begin in range(0, interactions, PIECE):
            count = min(PIECE, interactions - begin)
            columns = {
                "user_id": (users * rng.random(count) ** 2).astype(np.int64),
                "illust_id": (items * rng.random(count) ** 3).astype(np.int64),
                "timestamp": FIRST + rng.integers(0, 100_000_000, count),
                "label": (rng.random(count) < 0.2).astype(np.int8),
            }
            writer.write_table(pa.table(columns, schema))
            machine.progress(f"made up {begin + count:,} of {interactions:,} interactions")


def measure(folder: Path, data_dir: Path) -> dict[str, Any]:
    """Prepares the folder in a process of its own."""
    command = [sys.executable, "-m", "umair_jax.prepare", "--source=folder"]
    began = time.monotonic()
    subprocess.run([*command, f"--path={folder}", f"--data_dir={data_dir}"], check=True)
    seconds = time.monotonic() - began
    summary = json.loads((data_dir / "summary.json").read_text())
    return {
        "ours": summary["interactions"] / seconds,
        "unit": "interactions/s, items included",
        "seconds": seconds,
        "peak_gib": summary["peak_memory_bytes"] / 2**30,
        **{name: summary[name] for name in ("items", "users", "interactions")},
    }


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("interactions", "1e8"), ("items", "1e6"), ("users", "1e6")):
        parser.add_argument(f"--{name}", default=default, help="how many")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "prepare.jsonl")
    parser.add_argument("--root", type=Path, help="where the folders are made; default: temporary")
    given = parser.parse_args(argv)
    sizes = {name: int(float(getattr(given, name))) for name in ("items", "users", "interactions")}
    with tempfile.TemporaryDirectory(dir=given.root) as root:
        make_up(Path(root) / "mine", **sizes)
        row = measure(Path(root) / "mine", Path(root) / "data")
    case = f"{row['interactions']:,} interactions, {row['items']:,} items"
    rows = [{"bench": "prepare", "case": case} | row | machine.describe()]
    report.emit(rows[0])
    report.write(rows, given.out)
    columns = {"case": "log", "seconds": "s", "ours": "interactions/s", "peak_gib": "peak, GiB"}
    report.show("Preparing a long log", rows, columns)
    return rows


if __name__ == "__main__":
    main()
