"""The main job: data set, feature bank, UMAIR-FPS or a baseline, evaluation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import hosts, results, settings
from umair_jax.data import collisions, feature_bank, ranking
from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.schema_config import SchemaConfig
from umair_jax.encoding import ExtractConfig
from umair_jax.extract import bank_folder, bank_key, extract
from umair_jax.jobs import sections
from umair_jax.jobs.sections import DataConfig
from umair_jax.models.inputs import InputShapes
from umair_jax.models.layers import check_choice
from umair_jax.models.rankers import RANKERS, UMAIR_FPS
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training.evaluation import Evaluator
from umair_jax.training.settings import FitConfig
from umair_jax.training.state import State
from umair_jax.training.table_optimisers import TableOptimConfig


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


PREDICTIONS = "test_predictions.npz"
# What the data depend on; two configs that agree in these can share them.
DATA_SECTIONS = ("data", "schema", "features", "extract")
SECTIONS = {
    "data": DataConfig,
    "schema": SchemaConfig,
    "features": RankingConfig,
    "extract": ExtractConfig,
    "tables": TableOptimConfig,
    "eval": EvalConfig,
    **sections.COMMON,
}


@dataclasses.dataclass(frozen=True)
class BookmarksJob:
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

    @property
    def made_from(self) -> dict[str, str]:
        """The data set and the vectors of its items."""
        return made_from(self.dataset, self.extract)

    @property
    def features(self) -> RankingConfig:
        """How the data were split and joined."""
        section = self.config.to_dict().get("features", {})
        return settings.build(RankingConfig, section, "config.features")

    @property
    def extract(self) -> ExtractConfig:
        """The encoders of the items' vectors."""
        section = self.config.to_dict().get("extract", {})
        return settings.build(ExtractConfig, section, "config.extract")

    @property
    def bank_folder(self) -> Path:
        """Where the items' vectors are, and the encoders that made them."""
        section = self.config.to_dict().get("data", {})
        root = settings.build(DataConfig, section, "config.data").root
        return bank_folder(root, bank_key(self.dataset.catalogue_fingerprint, self.extract))

    def bank(self) -> FeatureBank:
        """The items' vectors as the encoders made them, read from disk."""
        return feature_bank.load(self.bank_folder)

    @property
    def source(self) -> BatchSource:
        """The training interactions."""
        train = self.fit.train
        return bookmarks.batch_source(self.data, "train", train.batch_size, seed=train.seed)

    def measured(self, evals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """The part of summary.json that follows from evaluations alone."""
        summary: dict[str, Any] = {}
        for part, name in results.PARTS.items():
            values = dict(evals[part])
            weights = {key: values.pop(f"weight_{key}") for key in self.task.modality_names}
            summary[name], summary["modality_weights"] = values, weights
        rows, log = self.data.rows("test"), self.dataset.interactions
        summary["constant"] = results.best_constant(log.label[rows])
        if log.true_probability is not None:
            summary["oracle"] = results.oracle(log.label[rows], log.true_probability[rows])
            summary["share_of_oracle"] = results.shares(
                summary["test"], summary["constant"], summary["oracle"]
            )
        return summary

    def export(self, workdir: Path, state: State, predict: Any) -> dict[str, Any]:
        """Writes the predictions for the test examples; the cost of one for summary.json.

        A ranker itself is used from its checkpoint.
        """
        source = bookmarks.batch_source(self.data, "test", self.eval.batch_size)
        columns = {name: source.column(name) for name in ("label", "user", "item")}
        predicted = predict(source)  # by all hosts together
        if hosts.is_first():
            partial = workdir / f"{PREDICTIONS}.tmp"
            with open(partial, "wb") as file:
                np.savez(file, **columns, **predicted)
            os.replace(partial, workdir / PREDICTIONS)
        return {
            "flops_per_example": bookmarks.flops_per_example(self.task, source),
            "hash_tables": collisions.summary(
                self.data.schema, self.dataset.items, self.dataset.users
            ),
        }

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        """Prints metrics beside oracle and constant, and how full the hash tables are."""
        results.show(summary, console)
        if "hash_tables" in summary:  # of a finished run
            collisions.show(summary["hash_tables"], console)


def made_from(dataset: Dataset, encoders: ExtractConfig) -> dict[str, str]:
    """Name -> digest of what the examples of a ranker, or of two towers, are made from."""
    key = bank_key(dataset.catalogue_fingerprint, encoders)
    return {"data set": dataset.fingerprint, "feature bank": key}


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The data of a config, before any ranker.

    Attributes:
        dataset: Items, users and log.
        data: The same as columns and context.
        bank_dir: Folder of the feature bank, and of the encoders that made it.
    """

    dataset: Dataset
    data: RankingData
    bank_dir: Path


def load(config: ConfigDict, console: Console) -> Loaded:
    """Prepares, encodes and joins the data of a config, or reads what is there.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    return joined(sections.read(config, SECTIONS, plain=("model",)), console)


def joined(made: Mapping[str, Any], console: Console, blank: Path | None = None) -> Loaded:
    """As `load`, for the sections of a config that are made already.

    Args:
        made: Section -> instance, see sections.read; those of DATA_SECTIONS are read.
        console: Where tables and notices go.
        blank: Where shapes are all that is wanted, a folder for what is made of vectors: nothing
            is encoded, the bank holds zeros.
    """
    schema = made["schema"].schema()
    dataset = sections.prepared(made["data"], console)
    if blank is None:
        key = bank_key(dataset.catalogue_fingerprint, made["extract"])
        folder = bank_folder(made["data"].root, key)
        bank = extract(dataset, made["extract"], folder, console=console)
    else:
        folder = blank
        bank = feature_bank.blank(len(dataset.items), **made["extract"].widths)
    data = ranking.build(dataset, bank, schema, made["features"], folder)
    return Loaded(dataset, data, folder)


def assemble(
    config: ConfigDict,
    console: Console,
    loaded: Loaded | None = None,
    blank: Path | None = None,
) -> BookmarksJob:
    """Checks a config and makes what it names, the data set and the bank first.

    Args:
        config: As get_config() gives it.
        console: Where tables and notices go.
        loaded: What `load` gave for a config with the same DATA_SECTIONS; None = load it.
        blank: See `joined`.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    made = sections.read(config, SECTIONS, plain=("model",))
    model = config.to_dict().get("model", {})
    # Mistakes come to light before the data are prepared and encoded.
    ranker(model, {})
    found = loaded or joined(made, console, blank)
    task = BookmarksTask(found.data, ranker(model, bookmarks.shape_of(found.data.schema)))
    fit = sections.fit_config(made)
    return BookmarksJob(config, found.dataset, found.data, task, fit, made["eval"])


def ranker(model: Mapping[str, Any], shape: Mapping[str, Any]) -> InputShapes:
    """The options of the ranker that `config.model` describes.

    Args:
        model: Its `name`, one of RANKERS, and options of that ranker.
        shape: What follows from the schema, see bookmarks.shape_of; none = the paper's.

    Raises:
        ValueError: An unknown name, option or value.
    """
    name = model.get("name", UMAIR_FPS)
    check_choice("config.model.name", name, tuple(RANKERS))
    given = {key: value for key, value in model.items() if key != "name"}
    return settings.build(RANKERS[name], {**given, **shape}, "config.model")
