"""What a training run is told: its length and rhythm, and all sections together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from umair_jax.training.checkpoints import CheckpointConfig
from umair_jax.training.logs import LogConfig
from umair_jax.training.optimisers import OptimConfig
from umair_jax.training.sharding import MeshConfig
from umair_jax.training.table_optimisers import TableOptimConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length and rhythm of a run.

    Attributes:
        batch_size: examples an update, over all devices.
        steps: updates; None or 0 takes ``epochs``.
        epochs: passes over the training examples, rounded up to whole updates; None or 0 takes
            ``steps``.
        seed: of initialisation and dropout.
        log_every_steps: updates between two reports.
        eval_every_steps: updates between two evaluations; 0 evaluates at the end only.
        checkpoint_every_steps: updates between two checkpoints; 0 saves at the end, and at each
            evaluation that is the best so far.
        early_stop_evals: evaluations without an improvement of ``checkpoint.best_metric`` after
            which the run ends; 0 never.
        read_threads: threads that gather batches.
        micro_batches: parts of each batch that are differentiated one after another, so that a
            large batch fits into a small memory; BatchNorm then sees one part at a time.
    """

    batch_size: int = 1024
    steps: int | None = None
    epochs: float | None = None
    seed: int = 0
    log_every_steps: int = 50
    eval_every_steps: int = 0
    checkpoint_every_steps: int = 0
    early_stop_evals: int = 0
    read_threads: int = 2
    micro_batches: int = 1

    def __post_init__(self) -> None:
        """Checks the values."""
        if bool(self.steps) == bool(self.epochs):
            raise ValueError(
                f"give either train.steps or train.epochs, got {self.steps} and {self.epochs}; "
                "set the other one to 0"
            )
        if (self.steps or 0) < 0 or (self.epochs or 0) < 0:
            raise ValueError(f"nothing to train: steps={self.steps}, epochs={self.epochs}")
        for field in ("batch_size", "log_every_steps", "micro_batches"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field} must be 1 or more, got {getattr(self, field)}")
        for field in (
            "eval_every_steps",
            "checkpoint_every_steps",
            "early_stop_evals",
            "read_threads",
            "seed",
        ):
            if getattr(self, field) < 0:
                raise ValueError(f"train.{field} must be 0 or more, got {getattr(self, field)}")

    def total_steps(self, examples: int) -> int:
        """Updates of the whole run."""
        if self.steps:
            return self.steps
        return math.ceil((self.epochs or 0) * examples / self.batch_size)


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """All that :func:`fit` wants to know. ``tables`` is for all tables, or one by table name."""

    train: TrainConfig
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    tables: TableOptimConfig | Mapping[str, TableOptimConfig] = dataclasses.field(
        default_factory=TableOptimConfig
    )
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        """Checks what concerns two sections."""
        if self.train.early_stop_evals and not self.checkpoint.best_metric:
            raise ValueError("train.early_stop_evals needs checkpoint.best_metric")
