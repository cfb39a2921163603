"""Measures a checkpoint again, from the working directory alone.

Prints the table that training ended with, and renews these numbers in summary.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from umair_jax import load_run, results


def evaluate(
    workdir: str | Path, checkpoint: str = "best", console: Console | None = None
) -> dict[str, Any]:
    """Measures a checkpoint on the validation and test examples.

    Args:
        workdir: Folder of a run, finished or not.
        checkpoint: best, newest, or the number of updates behind it.
        console: Where the table goes.

    Returns:
        The summary, renewed.

    Raises:
        ValueError: There is no such run or checkpoint.
    """
    console = console or Console()
    workdir = Path(workdir)
    run = load_run.load(workdir, checkpoint, console)
    evals = {
        name: evaluator.metrics(run.predict(evaluator.source))
        for name, evaluator in run.job.evaluators().items()
    }
    summary = {
        "task": run.job.task.name,
        "source": run.job.dataset.name,
        "simulated": run.job.dataset.simulated,
        **results.read(workdir),
        "evaluated_step": run.step,
        **run.job.measured(evals),
    }
    results.write(workdir, summary)
    run.job.show(summary, console)
    console.print(f"Checkpoint {run.step:,} of {workdir}", markup=False)
    return summary
