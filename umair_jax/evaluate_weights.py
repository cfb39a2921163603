"""Asks a trained ranker whether its modality weights mean something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from umair_jax import load_run, results
from umair_jax.data.batches import BatchSource
from umair_jax.jobs.bookmarks import BookmarksJob
from umair_jax.probes import contributions
from umair_jax.tasks import bookmarks
from umair_jax.training.evaluation import Predictor

KEY = "weights_probe"


def evaluate_weights(
    workdir: str | Path, checkpoint: str = "best", console: Console | None = None
) -> dict[str, Any]:
    """Correlates weights with what users are made of, and masks modalities.

    Args:
        workdir: Folder of a run of the main job.
        checkpoint: best, newest, or the number of updates behind it.
        console: Where the tables go.

    Returns:
        What is added to summary.json as "weights_probe": "rank_correlation" (where simulated),
        see contributions.rank_correlations, and "deletion", see contributions.deletion.

    Raises:
        ValueError: There is no such run or checkpoint, or its model weighs no modalities.
    """
    console = console or Console()
    run = load_run.load(workdir, checkpoint, console)
    job: Any = run.job
    if not isinstance(job, BookmarksJob) or not job.task.modality_names:
        raise ValueError(
            f"{workdir}: got a model without modality weights; expected a run of UMAIR-FPS"
        )
    names = job.task.modality_names
    source = bookmarks.batch_source(job.data, "test", job.eval.batch_size)
    whole = run.predict(source)
    label, user = source.column("label"), source.column("user")

    def without(name: str) -> np.ndarray:
        masked = Predictor(job.task.without(name), run.predictor.mesh)
        found = masked(run.state, run.context, source)
        assert found is not None  # nobody can stop it
        return found["probability"]

    probe: dict[str, Any] = {"step": run.step}
    mixture = job.dataset.users.true_mixture
    if mixture is not None:
        # Over all that the users were shown, not the test examples alone: less noise.
        every = BatchSource(job.data.columns, job.eval.batch_size, shuffle=False)
        shown = run.predict(every)["weights"]
        found = contributions.rank_correlations(shown, names, every.column("user"), mixture)
        probe["rank_correlation"] = found
        table = Table(title="Rank correlation of true mixture and mean weight, over users")
        table.add_column("taste")
        table.add_column("correlation", justify="right")
        for taste, value in found.items():
            table.add_row(taste, f"{value:.3f}")
        console.print(table)
    probe["deletion"] = contributions.deletion(label, user, whole, without, names)
    console.print(_deletion_table(probe["deletion"], names))
    more = {end: probe["deletion"][f"largest_hurts_more_auc{end}"] for end in ("", "_low", "_high")}
    console.print(
        f"The largest is missed more than the smallest by {more['']:.4f} AUC "
        f"({more['_low']:.4f} to {more['_high']:.4f}, 95 % interval over users)."
    )
    workdir = Path(workdir)
    results.write(workdir, {**results.read(workdir), KEY: probe})
    return probe


def _deletion_table(found: dict[str, float], names: tuple[str, ...]) -> Table:
    table = Table(title="Test examples with a modality masked", title_justify="left")
    table.add_column("masked")
    for header in ("AUC", "log loss"):
        table.add_column(header, justify="right")
    cases = {"": "nothing", "_without_largest": "the largest weight of each example"}
    cases |= {"_without_smallest": "the smallest weight of each example"}
    cases |= {f"_without_{name}": name for name in names}
    for case, words in cases.items():
        table.add_row(words, f"{found[f'auc{case}']:.4f}", f"{found[f'log_loss{case}']:.4f}")
    return table
