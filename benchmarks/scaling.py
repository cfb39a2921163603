"""What an update of the full ranker costs, by rows of its tables, by batch and by devices.

    python -m benchmarks.scaling [--rows 1e4 1e6 1e8] [--batches 128 4096] [--devices 1 2]
                                                                     (make bench-scaling)

The step is that of the training loop, in the paper's sizes, as in benchmarks/ranker.py. Rows are
those of the table of drawings: with 1e8 of them, tables and optimiser take 5 GiB. Sizes that do
not fit into free memory are left out, and said so. Devices beyond the cores are the host's, shared:
they show what spreading costs, not what it gains. Rounds of all cases of a part take turns.
docs/pictures/scaling.png is drawn of the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import machine, made_up, report
from benchmarks.ranker import BATCHES, Runner, train_step
from benchmarks.rounds import take_turns
from umair_jax.memory import keep_freed_memory
from umair_jax.models.ranker import RankerConfig
from umair_jax.tasks.bookmarks import BookmarksTask, batch_source, shape_of
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh, place_context

PICTURE = Path("docs") / "pictures" / "scaling.png"
# Of a drawing's row: 8 weights and a linear one, each row with a slot and an accumulator.
ROW_BYTES = 4 * (8 + 1 + 2 * 2)
SIZES = made_up.Sizes()
NETWORK: dict[str, Any] = {}
COLUMNS = {
    "part": "by",
    "case": "case",
    "step_ms": "step, ms",
    "ours": "examples/s",
    "against": "against the one marked *",
    "table_gib": "tables and optimiser, GiB",
}


def runner(rows: int, batch_size: int, devices: int, round_seconds: float) -> Runner:
    """The step of a case, compiled."""
    data = made_up.ranking_data(dataclasses.replace(SIZES, illust_ids=rows))
    task = BookmarksTask(data, RankerConfig(**{**shape_of(data.schema), **NETWORK}))
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    step, state = train_step(task, mesh)
    source = batch_source(data, "train", batch_size)
    batches = [source.batch(k) for k in range(BATCHES)]
    place = BatchPlacer(mesh, batch_size)
    return Runner(step, state, place_context(data.context, mesh), batches, place, round_seconds)


def part(
    name: str,
    cases: Sequence[tuple[str, tuple[int, int, int]]],
    marked: str,
    rounds: int,
    round_seconds: float,
) -> list[dict[str, Any]]:
    """Results of some cases: (name, (rows, batch size, devices)) each."""
    made: dict[str, Runner] = {}
    for case, (rows, batch_size, devices) in cases:
        # Initial values are drawn beside the table that takes them.
        needed = 2.5 * rows * ROW_BYTES
        if needed > machine.free_bytes():
            machine.progress(f"{case}: needs {needed / 2**30:.1f} GiB; left out")
            continue
        machine.progress(f"{name}: {case}")
        made[case] = runner(rows, batch_size, devices, round_seconds)
    take_turns(list(made.values()), rounds)
    about = machine.describe() | {"device": jax.devices()[0].device_kind, "marked": marked}
    found = []
    for case, (rows, batch_size, devices) in cases:
        if case not in made:
            continue
        seconds = made[case].step_seconds
        found.append(
            {
                "bench": "scaling",
                "part": name,
                "case": case + " *" * (case == marked),
                "ours": batch_size / seconds,
                "unit": "examples/s",
                "step_ms": 1e3 * seconds,
                "against": seconds / made[marked].step_seconds if marked in made else None,
                "table_gib": rows * ROW_BYTES / 2**30,
                "rows": rows,
                "batch_size": batch_size,
                "devices": devices,
                "foreign_cpu_share": made[case].usage.foreign_share,
            }
            | about
        )
        report.emit(found[-1])
    return found


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Step time by rows, examples a second by batch and by devices."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels: list[tuple[str, str, str, Callable[[dict[str, Any]], float]]] = [
        ("rows", "rows of the table of drawings", "step, ms", lambda r: r["step_ms"]),
        ("batch", "batch", "examples/s", lambda r: r["ours"]),
        ("devices", "devices, sharing the cores", "examples/s", lambda r: r["ours"]),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    keys = {"rows": "rows", "batch": "batch_size", "devices": "devices"}
    for ax, (name, xlabel, ylabel, value) in zip(axes, panels, strict=True):
        rows = [r for r in results if r["part"] == name]
        ax.plot([r[keys[name]] for r in rows], [value(r) for r in rows], "o-", color="#31688e")
        top = 1.1 * max((value(r) for r in rows), default=1.0)
        ax.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, top))
        if name != "devices":
            ax.set_xscale("log")
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints, writes and draws the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    number = {"nargs": "+", "type": lambda text: int(float(text))}
    parser.add_argument("--rows", default=[10**k for k in (4, 5, 6, 7, 8)], **number)
    parser.add_argument("--batches", default=[100, 1000, 10_000, 100_000], **number)
    parser.add_argument("--devices", default=[1, 2, 4, 8], **number)
    parser.add_argument("--batch", type=int, default=4096, help="where it is not what varies")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each case")
    parser.add_argument("--round_seconds", type=float, default=0.7, help="length of a round")
    parser.add_argument("--out", type=Path, default=report.RESULTS / "scaling.jsonl")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args(argv)
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", max(given.devices))
    parts = {
        "rows": (
            [(f"{rows:,} rows", (rows, given.batch, 1)) for rows in given.rows],
            f"{10**6:,} rows",
        ),
        "batch": (
            [(f"batch {size:,}", (10**6, size, 1)) for size in given.batches],
            f"batch {given.batches[0]:,}",
        ),
        "devices": (
            [(f"devices {n}", (10**6, given.batch, n)) for n in given.devices],
            "devices 1",
        ),
    }
    results = []
    for name, (cases, marked) in parts.items():
        results += part(name, cases, marked, given.rounds, given.round_seconds)
        gc.collect()
    report.write(results, given.out)
    report.show("An update of the full ranker", results, COLUMNS)
    draw(results, given.picture)
    return results


if __name__ == "__main__":
    keep_freed_memory()
    main()
