"""A run as it was left: its job, the state of a checkpoint, and predictions with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import jobs, settings
from umair_jax.data.batches import BatchSource
from umair_jax.data.ranking_config import DEVICE
from umair_jax.jobs import Job
from umair_jax.jobs.bookmarks import BookmarksJob
from umair_jax.training import checkpoints, record, sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Arrays, Predictor
from umair_jax.training.optimisers import make_optimiser
from umair_jax.training.sharding import MeshConfig
from umair_jax.training.state import State


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A job with the state that a checkpoint holds.

    Attributes:
        job: What the run's config stands for.
        step: Updates behind the state.
        state: Parameters and statistics, on the mesh.
        context: The task's arrays, on the mesh, as they are with that state.
        predictor: Runs the task; compiles once a batch shape.
    """

    job: Job
    step: int
    state: State
    context: Mapping[str, Any]
    predictor: Predictor

    @property
    def bookmarks(self) -> BookmarksJob:
        """The job, if it is a ranker's.

        Raises:
            ValueError: It is another's.
        """
        if not isinstance(self.job, BookmarksJob):
            raise ValueError(f"got a run of the task {self.job.task.name!r}; expected a ranker's")
        return self.job

    def predict(self, source: BatchSource, instead: Mapping[str, Any] | None = None) -> Arrays:
        """Predictions {name: [E, ...]} for a source's E examples, in their order.

        Args:
            source: The examples.
            instead: Arrays that stand in for those of the context of the same names.
        """
        arrays = self.predictor(self.state, {**self.context, **(instead or {})}, source)
        assert arrays is not None  # nobody can stop it
        return arrays


def recorded(workdir: str | Path) -> dict[str, Any]:
    """What config.json of a run says: "config", "versions", "devices".

    Raises:
        ValueError: There is no such run.
    """
    path = Path(workdir) / record.CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{workdir}: got no {path.name}; expected the folder of a run; train first, or name "
            "another --workdir"
        )
    return json.loads(path.read_text("utf-8"))


def load(workdir: str | Path, checkpoint: str, console: Console) -> LoadedRun:
    """Assembles a run's job and reads one of its checkpoints.

    Args:
        workdir: Folder of a run, finished or not.
        checkpoint: best, newest, or the number of updates behind it.
        console: Where notices of the data set and the bank go.

    Raises:
        ValueError: There is no such run or checkpoint.
    """
    workdir = Path(workdir)
    found = recorded(workdir)
    config = found["config"]
    if "vectors_on" in config.get("features", {}):
        # Whoever reads a run asks about single people and items: their vectors are looked up here.
        config["features"]["vectors_on"] = DEVICE
    # Whatever it was trained on, it is read with the devices that are here.
    trained_on = settings.build(MeshConfig, config.get("mesh", {}), "config.mesh")
    config["mesh"] = dataclasses.asdict(sharding.fitting(trained_on, jax.device_count()))
    job = jobs.assemble(ConfigDict(config), console)
    for name in record.changed(found, job.made_from):
        console.print(
            f"{workdir}: the {name} changed since the run began; what it learned was of another",
            style="bold",
            markup=False,
        )
    mesh = sharding.make_mesh(job.fit.mesh)
    total = job.fit.train.total_steps(len(job.source))
    init = states.initialiser(
        job.task, make_optimiser(job.fit.optim, total), job.fit.tables, job.fit.train.seed
    )
    abstract = states.abstract_state(init, mesh, job.fit.mesh.rules)
    step, state, _ = checkpoints.load(workdir, abstract, checkpoint)
    context = sharding.place_context(job.task.context(), mesh, job.fit.mesh.context_rules)
    predictor = Predictor(job.task, mesh)
    current = predictor.current(state, context)
    assert current is not None  # nobody can stop it
    return LoadedRun(job, step, state, current, predictor)
