"""From a config to everything that it names: data set, feature bank, ranker, options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import results, settings
from umair_jax.data import ranking, store
from umair_jax.data.dataset import Dataset
from umair_jax.data.images import PIXEL_LIMIT
from umair_jax.data.ranking import RankingConfig, RankingData
from umair_jax.data.schema_config import SchemaConfig
from umair_jax.data.sources import open_source
from umair_jax.encoding import ExtractConfig
from umair_jax.extract import bank_key, extract
from umair_jax.models.ranker import RankerConfig
from umair_jax.prepare import prepare
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training.checkpoints import CheckpointConfig
from umair_jax.training.evaluation import Evaluator
from umair_jax.training.logs import LogConfig
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

    def evaluators(self) -> dict[str, Evaluator]:
        """Measures "valid" as the training goes, and both "valid" and "test" at its end."""
        draws, names = self.eval.bootstrap_draws, self.task.modality_names
        return {
            part: bookmarks.evaluator(
                bookmarks.batch_source(self.data, part, self.eval.batch_size),
                draws,
                names,
                final_only=part == "test",
            )
            for part in results.PARTS
        }


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
    dataset = _prepared(made["data"], console)
    key = bank_key(dataset.catalogue_fingerprint, made["extract"])
    bank_dir = Path(made["data"].root) / "banks" / key[:16]
    bank = extract(dataset, made["extract"], bank_dir, console=console)
    data = ranking.build(dataset, bank, schema, made["features"])
    shape = bookmarks.shape_of(data.schema)
    given = {**sections.get("model", {}), **shape}
    task = BookmarksTask(data, settings.build(RankerConfig, given, "config.model"))
    names = ("optim", "tables", "mesh", "checkpoint", "log")
    return Job(
        config, dataset, data, task, FitConfig(train, **{n: made[n] for n in names}), made["eval"]
    )


def _prepared(config: DataConfig, console: Console) -> Dataset:
    parts = [config.source, Path(config.path).name, config.limit and f"first{config.limit}"]
    data_dir = Path(config.root) / "-".join([*filter(None, parts), f"seed{config.seed}"])
    prepare(
        open_source(config.source, config.path or None, config.seed, config.limit or None),
        data_dir,
        pixel_limit=config.pixel_limit,
        max_bad_share=config.max_bad_share,
        negatives=config.negatives,
        negatives_per_positive=config.negatives_per_positive,
        seed=config.seed,
        console=console,
    )
    return store.load(data_dir)


def measured(job: Job, evals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The part of summary.json that follows from evaluations alone.

    Args:
        job: What was trained.
        evals: What the job's evaluators measured, by name.
    """
    summary: dict[str, Any] = {}
    for part, name in results.PARTS.items():
        values = dict(evals[part])
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
