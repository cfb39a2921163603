"""Asks a trained ranker how many bookmarks of somebody new it needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from umair_jax import load_run, results
from umair_jax.data.batches import BatchSource
from umair_jax.data.fold_in import Bookmarks, FoldIn
from umair_jax.probes import newcomers
from umair_jax.probes.newcomers import COUNTS, Newcomers

KEY = "newcomers_probe"


def evaluate_newcomers(
    workdir: str | Path,
    checkpoint: str = "best",
    console: Console | None = None,
    counts: Sequence[int] = COUNTS,
) -> dict[str, Any]:
    """Folds in the first bookmarks of test users, whose ids the ranker is not told.

    Args:
        workdir: Folder of a run of a ranker; of the split cold_user, to be about new people.
        checkpoint: best, newest, or the number of updates behind it.
        console: Where the table goes.
        counts: Numbers of bookmarks that are known.

    Returns:
        What is added to summary.json as "newcomers_probe": "step", "split", and "after", metrics
        by number of bookmarks.

    Raises:
        ValueError: There is no such run or checkpoint, it is not a ranker's, or no test user has
            enough bookmarks.
    """
    console = console or Console()
    run = load_run.load(workdir, checkpoint, console)
    job = run.bookmarks
    config = job.features
    fold_in = FoldIn(job.dataset, job.data, config)

    def predict(people: Newcomers, known: list[Bookmarks]) -> np.ndarray:
        columns = {name: column[people.rows] for name, column in job.data.columns.items()}
        columns["user"] = np.zeros_like(columns["user"])
        columns["state"] = people.place.astype(np.int32)
        states = fold_in.states(known, people.moment)
        source = BatchSource(columns, job.eval.batch_size, shuffle=False)
        return run.predict(source, states)["probability"]

    found = newcomers.measure(
        job.dataset, job.data, predict, tuple(counts), job.eval.bootstrap_draws
    )
    probe = {
        "step": run.step,
        "split": config.split,
        "after": {str(count): values for count, values in found.items()},
    }
    first = next(iter(found.values()))
    table = Table(
        title=f"{first['users']:,} people ({config.split} split), {first['examples']:,} examples",
        title_justify="left",
    )
    table.add_column("bookmarks known", justify="right")
    for header in ("AUC", "95 % interval", "GAUC", "log loss"):
        table.add_column(header, justify="right")
    for count, values in found.items():
        low, high = values.get("auc_low"), values.get("auc_high")
        table.add_row(
            str(count),
            f"{values['auc']:.4f}",
            "" if low is None else f"{low:.3f} to {high:.3f}",
            f"{values['gauc']:.4f}",
            f"{values['log_loss']:.4f}",
        )
    console.print(table)
    workdir = Path(workdir)
    results.write(workdir, {**results.read(workdir), KEY: probe})
    return probe
