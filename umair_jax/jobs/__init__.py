"""From a config to everything that it names, short of the training itself: one module a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ml_collections import ConfigDict
from rich.console import Console

from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.jobs import bookmarks, image_tags, joint, retrieval, text_pairs
from umair_jax.training.evaluation import Arrays, Evaluator
from umair_jax.training.loop import Task
from umair_jax.training.settings import FitConfig
from umair_jax.training.state import State

JOBS = {
    "bookmarks": bookmarks.assemble,
    "image_tags": image_tags.assemble,
    "joint": joint.assemble,
    "retrieval": retrieval.assemble,
    "text_pairs": text_pairs.assemble,
}


@runtime_checkable
class Job(Protocol):
    """What the front doors need of a job.

    Attributes:
        config: The resolved config.
        dataset: Items, users and log.
        task: What is trained.
        source: Its examples.
        fit: Options of the training.
    """

    config: ConfigDict
    dataset: Dataset
    task: Task
    source: BatchSource
    fit: FitConfig

    @property
    def made_from(self) -> dict[str, str]:
        """Name -> digest of all that the examples are made from, the config aside."""
        ...

    def evaluators(self) -> dict[str, Evaluator]:
        """What is measured as the training goes and at its end."""
        ...

    def measured(self, evals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """The part of summary.json that follows from evaluations alone."""
        ...

    def export(
        self, workdir: Path, state: State, predict: Callable[[BatchSource], Arrays]
    ) -> dict[str, Any]:
        """Writes what others use of the trained state; returns more for summary.json."""
        ...

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        """Prints the summary."""
        ...


# Those that learn from vectors alone; the others need what encoders see, or encoders.
FROM_VECTORS = ("bookmarks", "retrieval")


def assemble(config: ConfigDict, console: Console, blank: Path | None = None) -> Job:
    """Checks a config and makes what it names, the data set first.

    Args:
        config: As get_config() gives it.
        console: Where tables and notices go.
        blank: Where shapes are all that is wanted, a folder for what is made of vectors: those of
            FROM_VECTORS encode nothing then, and learn from zeros.

    Raises:
        ValueError: A job, key or value that is not known, or data that cannot be used.
    """
    name = config.get("task", "bookmarks")
    if name not in JOBS:
        raise ValueError(f"config.task: got {name!r}, expected one of {', '.join(JOBS)}")
    if blank is not None and name in FROM_VECTORS:
        return JOBS[name](config, console, blank=blank)
    return JOBS[name](config, console)
