"""Trains what a config names: data set, feature bank, ranker, evaluation, in one go.

    python -m umair_jax.train --config=configs/base.py [--config.seed=1] [--workdir=runs/one]

Whatever is done already is kept: the data set and the bank by their content, a finished or
interrupted run by its checkpoints. --restart begins the run anew.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from umair_jax import results, settings
from umair_jax.data import ranking, store
from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.data.images import PIXEL_LIMIT
from umair_jax.data.ranking import RankingConfig, RankingData
from umair_jax.data.schema_config import SchemaConfig
from umair_jax.data.sources import open_source
from umair_jax.encoding import ExtractConfig
from umair_jax.extract import bank_key, extract
from umair_jax.memory import keep_freed_memory
from umair_jax.models.ranker import RankerConfig
from umair_jax.prepare import prepare
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training.checkpoints import CheckpointConfig
from umair_jax.training.evaluation import Arrays, Evaluator
from umair_jax.training.logs import LogConfig
from umair_jax.training.loop import FitResult, fit
from umair_jax.training.optimisers import OptimConfig
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh
from umair_jax.training.table_optimisers import TableOptimConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the data come from and where they are kept.

    Attributes:
        source: openclipart (built in) or folder.
        path: The folder to read; openclipart needs none.
        limit: Use only the first so many drawings of openclipart; 0 = all.
        root: Folder for prepared data sets and feature banks.
        seed: Seed of the simulated log and of sampled negatives.
        pixel_limit: Largest width x height of a picture.
        max_bad_share: Largest tolerated share of bad rows in any one file.
        negatives: auto, none, uniform or popularity; see umair_jax.prepare.
        negatives_per_positive: Sampled negatives per bookmark.
    """

    source: str = "openclipart"
    path: str = ""
    limit: int = 0
    root: str = "data"
    seed: int = 0
    pixel_limit: int = PIXEL_LIMIT
    max_bad_share: float = 0.05
    negatives: str = "auto"
    negatives_per_positive: int = 4

    def __post_init__(self):
        if self.limit < 0:
            raise ValueError(f"limit: got {self.limit}; expected 1 or more drawings, or 0 for all")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How results are measured.

    Attributes:
        batch_size: Examples a batch, over all devices.
        bootstrap_draws: Draws behind each interval; 0 = no intervals.
    """

    batch_size: int = 2048
    bootstrap_draws: int = 200

    def __post_init__(self):
        if self.batch_size < 1 or self.bootstrap_draws < 0:
            raise ValueError(
                f"eval: got {self}; expected batch_size of 1 or more, bootstrap_draws of 0 or more"
            )


SECTIONS = {
    "data": DataConfig,
    "schema": SchemaConfig,
    "features": RankingConfig,
    "extract": ExtractConfig,
    "optim": OptimConfig,
    "tables": TableOptimConfig,
    "mesh": MeshConfig,
    "eval": EvalConfig,
    "checkpoint": CheckpointConfig,
    "log": LogConfig,
}


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a config stands for, short of the training itself.

    Attributes:
        config: The resolved config.
        dataset: Items, users and log.
        data: The same as columns and context.
        task: The ranker.
        fit: Options of the training.
        eval: Options of the evaluation.
    """

    config: ConfigDict
    dataset: Dataset
    data: RankingData
    task: BookmarksTask
    fit: FitConfig
    eval: EvalConfig

    def evaluator(self, part: str, final_only: bool = False) -> Evaluator:
        """Measures "valid" or "test"; intervals only for what is measured once."""
        source = bookmarks.batch_source(self.data, part, self.eval.batch_size)
        draws = self.eval.bootstrap_draws if final_only else 0
        return bookmarks.evaluator(source, draws, self.task.modality_names, final_only)


def assemble(config: ConfigDict, console: Console) -> Job:
    """Checks a config and makes what it names, the data set and the bank first.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    sections = config.to_dict()
    unknown = sorted(set(sections) - {*SECTIONS, "seed", "model", "train"})
    if unknown:
        raise ValueError(f"config: unknown sections {unknown}; expected seed, model, train, "
                         f"{', '.join(SECTIONS)}")  # fmt: skip
    made: dict[str, Any] = {
        name: settings.build(kind, sections.get(name, {}), f"config.{name}")
        for name, kind in SECTIONS.items()
    }
    seed = sections.get("seed", 0)
    train = settings.build(TrainConfig, {**sections["train"], "seed": seed}, "config.train")
    schema = made["schema"].schema()
    # Mistakes come to light before the data are prepared and encoded.
    settings.build(RankerConfig, sections.get("model", {}), "config.model")
    mesh = make_mesh(made["mesh"])
    for name, batch_size in (("train", train.batch_size), ("eval", made["eval"].batch_size)):
        try:
            BatchPlacer(mesh, batch_size)
        except ValueError as error:
            raise ValueError(f"config.{name}: {error}") from error
    where: DataConfig = made["data"]
    root = Path(where.root)
    parts = [where.source, Path(where.path).name, where.limit and f"first{where.limit}"]
    data_dir = root / "-".join([*filter(None, parts), f"seed{where.seed}"])
    prepare(
        open_source(where.source, where.path or None, where.seed, where.limit or None),
        data_dir,
        pixel_limit=where.pixel_limit,
        max_bad_share=where.max_bad_share,
        negatives=where.negatives,
        negatives_per_positive=where.negatives_per_positive,
        seed=where.seed,
        console=console,
    )
    dataset = store.load(data_dir)
    key = bank_key(dataset.catalogue_fingerprint, made["extract"])
    bank = extract(dataset, made["extract"], root / "banks" / key[:16], console=console)
    data = ranking.build(dataset, bank, schema, made["features"])
    shape = bookmarks.shape_of(data.schema)
    given = {**sections.get("model", {}), **shape}
    task = BookmarksTask(data, settings.build(RankerConfig, given, "config.model"))
    names = ("optim", "tables", "mesh", "checkpoint", "log")
    return Job(
        config, dataset, data, task, FitConfig(train, **{n: made[n] for n in names}), made["eval"]
    )


def train(
    config: ConfigDict, workdir: str | Path, restart: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Makes the data, trains, evaluates, and writes summary.json.

    Args:
        config: As get_config() of a file in configs/ gives it.
        workdir: Where the run is, or will be.
        restart: Delete the run that is there first.
        console: Where tables and notices go.

    Returns:
        The summary; its keys are listed in the README.
    """
    console = console or Console()
    began = time.monotonic()
    workdir = Path(workdir)
    job = assemble(config, console)
    source = bookmarks.batch_source(
        job.data, "train", job.fit.train.batch_size, seed=job.fit.train.seed
    )
    evaluators = {"valid": job.evaluator("valid"), "test": job.evaluator("test", final_only=True)}
    result = fit(
        job.task,
        source,
        evaluators,
        job.fit,
        workdir,
        restart=restart,
        record=settings.as_json(config),
    )
    if result.interrupted:
        return {"task": job.task.name, "steps": result.steps, "interrupted": True}
    summary = summarise(job, result)
    summary["wall_seconds"] = time.monotonic() - began
    results.write(workdir, summary)
    results.show(summary, console)
    console.print(
        f"{summary['steps']:,} steps, {summary['examples_per_second']:,.0f} examples/s, "
        f"{summary['wall_seconds']:.0f} s in all; written to {workdir}"
    )
    return summary


def summarise(job: Job, result: FitResult) -> dict[str, Any]:
    """summary.json of a finished training."""
    return {
        "task": job.task.name,
        "source": job.dataset.name,
        "simulated": job.dataset.simulated,
        "steps": result.steps,
        "best_step": result.state_step,
        "seconds": result.seconds,
        "examples_per_second": result.examples_per_second,
        "data_wait_share": result.data_wait_share,
        "params": result.params,
        **measured(job, result.predict),
    }


def measured(job: Job, predict: Callable[[BatchSource], Arrays]) -> dict[str, Any]:
    """The part of summary.json that follows from predictions alone.

    Args:
        job: What was trained.
        predict: Source -> predictions of the state to judge.
    """
    summary: dict[str, Any] = {}
    for part, name in results.PARTS.items():
        evaluator = job.evaluator(part, final_only=True)
        values = evaluator.metrics(predict(evaluator.source))
        weights = {key: values.pop(f"weight_{key}") for key in job.task.modality_names}
        summary[name], summary["modality_weights"] = values, weights
    rows, log = job.data.rows("test"), job.dataset.interactions
    summary["constant"] = results.best_constant(log.label[rows])
    if log.true_probability is not None:
        summary["oracle"] = results.oracle(log.label[rows], log.true_probability[rows])
        summary["share_of_oracle"] = results.shares(
            summary["test"], summary["constant"], summary["oracle"]
        )
    return summary


def define_flags() -> None:
    """The flags of the command line; in a function, since other front doors import this one."""
    config_flags.DEFINE_config_file("config", "configs/base.py", "Python file with get_config().")
    flags.DEFINE_string("workdir", None, "Folder of the run; runs/<config name> if left out.")
    flags.DEFINE_bool("restart", False, "Delete the run in the working directory first.")


def main(argv: list[str]) -> None:
    """Parses the flags and trains."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --config.seed=1")
    values = flags.FLAGS
    name = Path(config_flags.get_config_filename(values["config"])).stem
    train(values.config, values.workdir or Path("runs") / name, values.restart)


if __name__ == "__main__":
    define_flags()
    keep_freed_memory()
    settings.run_front_door(main)
