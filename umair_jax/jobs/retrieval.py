"""Candidates: two towers trained on bookmarks, and vectors of the catalogue to search among."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from umair_jax import hosts, results
from umair_jax.data import catalogue_questions, collisions, publication
from umair_jax.data.batches import BatchSource
from umair_jax.data.catalogue_questions import CatalogueQuestions
from umair_jax.data.dataset import Dataset
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.snapshot import moment_after
from umair_jax.encoding import ExtractConfig
from umair_jax.interop import vector_index
from umair_jax.jobs import bookmarks, sections
from umair_jax.jobs.bookmarks import EvalConfig
from umair_jax.models.layers import check_choice
from umair_jax.models.sampled_softmax import SampledSoftmaxConfig
from umair_jax.models.two_tower import TwoTowerConfig
from umair_jax.tasks.interactions import shape_of
from umair_jax.tasks.retrieval import DAY, ITEM, USER, RetrievalTask
from umair_jax.training import catalogue_ranks
from umair_jax.training.evaluation import Arrays, Evaluator
from umair_jax.training.settings import FitConfig
from umair_jax.training.state import State

VECTORS, IDS = "item_vectors.npy", "item_ids.json"
CUTOFFS = (10, 100, 500)
# In order of the bookmarks before the part, of those of the seven days before each bookmark, and of
# publication, the newest first.
BASELINES = ("popularity", "last_7_days", "newest")
# Recall of the items that nobody has seen in training.
COLD = "cold_recall_at_100"


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What the run leaves beside the vectors.

    Attributes:
        index: An index of the items' vectors: none, usearch or faiss. The last two need the
            package of that name, see interop/vector_index.py.
    """

    index: str = "none"

    def __post_init__(self):
        check_choice("export index", self.index, ("none", *vector_index.KINDS))
        if self.index != "none":
            vector_index.require(self.index)


SECTIONS = {
    **bookmarks.SECTIONS,
    "model": TwoTowerConfig,
    "objective": SampledSoftmaxConfig,
    "export": ExportConfig,
}


@dataclasses.dataclass(frozen=True)
class RetrievalJob:
    """Everything that a config stands for, short of the training itself.

    Attributes:
        config: The resolved config.
        dataset: Items, users and log.
        data: The same as columns and context.
        task: The two towers.
        fit: Options of the training.
        extract: The encoders of the items' vectors.
        features: What `data` was built with.
        eval: Options of the evaluation.
        exported: Options of what the run leaves.
    """

    config: ConfigDict
    dataset: Dataset
    data: RankingData
    task: RetrievalTask
    fit: FitConfig
    extract: ExtractConfig
    features: RankingConfig
    eval: EvalConfig
    exported: ExportConfig

    @property
    def made_from(self) -> dict[str, str]:
        """The data set and the vectors of its items."""
        return bookmarks.made_from(self.dataset, self.extract)

    @functools.cached_property
    def source(self) -> BatchSource:
        """The training bookmarks.

        Raises:
            ValueError: There are none.
        """
        rows = self.data.rows("train")
        marked = rows[self.data.columns["label"][rows] == 1]
        if not len(marked):
            raise ValueError(
                f"train: got {len(rows)} interactions without a bookmark; expected some; two "
                "towers learn from bookmarks alone"
            )
        train = self.fit.train
        columns = {**self.data.columns, DAY: publication.days(self.dataset)[0]}
        return BatchSource(columns, train.batch_size, train.seed, index=marked)

    @functools.cached_property
    def questions(self) -> dict[str, CatalogueQuestions]:
        """The bookmarks of the held-out parts."""
        return {
            part: catalogue_questions.build(self.dataset, self.data, self.features, part)
            for part in results.PARTS
        }

    @property
    def cutoffs(self) -> tuple[int, ...]:
        """The k of recall@k; the largest only where the catalogue has more items."""
        return tuple(k for k in CUTOFFS if k < max(CUTOFFS) or k < len(self.dataset.items))

    def evaluators(self) -> dict[str, Evaluator]:
        """Measures "valid" as the training goes, and both "valid" and "test" at its end."""
        return {
            part: Evaluator(
                BatchSource(asked.columns, self.eval.batch_size, shuffle=False),
                functools.partial(self._metrics, asked),
                final_only=part == "test",
            )
            for part, asked in self.questions.items()
        }

    def _metrics(self, asked: CatalogueQuestions, arrays: Arrays) -> dict[str, float]:
        user, item = arrays[USER][: len(asked)], arrays[ITEM][len(asked) :]
        return self._measure(asked, lambda rows: user[rows] @ item.T)

    def _measure(
        self, asked: CatalogueQuestions, score: Callable[[slice], np.ndarray]
    ) -> dict[str, float]:
        items = len(self.dataset.items)
        found = catalogue_ranks.ranks(score, asked.allowed, asked.item - 1, items)
        draws = self.eval.bootstrap_draws
        values = catalogue_ranks.summarise(found, asked.user, self.cutoffs, draws)
        if asked.cold.any():
            values[COLD] = float(catalogue_ranks.recall_at(found, 100)[asked.cold].mean())
        return values

    @functools.cached_property
    def baselines(self) -> dict[str, dict[str, dict[str, float]]]:
        """What lists reach that are the same for everybody, BASELINES, for both parts."""

        def score(asked: CatalogueQuestions, name: str, rows: slice) -> np.ndarray:
            if name == "last_7_days":
                return asked.recent(rows)
            same = asked.popularity if name == "popularity" else asked.published
            return np.broadcast_to(same, (rows.stop - rows.start, len(same)))

        return {
            name: {
                results.PARTS[part]: self._measure(asked, functools.partial(score, asked, name))
                for part, asked in self.questions.items()
            }
            for name in BASELINES
        }

    def measured(self, evals: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """Metrics of both parts, those of the baselines, and what was asked."""
        asked = {results.PARTS[part]: questions for part, questions in self.questions.items()}
        return {
            **{name: dict(evals[part]) for part, name in results.PARTS.items()},
            **self.baselines,
            "catalogue": len(self.dataset.items),
            "bookmarks": {name: len(each) for name, each in asked.items()},
            "cold_share": {name: float(each.cold.mean()) for name, each in asked.items()},
            "repeated_bookmarks": {name: each.repeated for name, each in asked.items()},
        }

    def export(
        self, workdir: Path, state: State, predict: Callable[[BatchSource], Arrays]
    ) -> dict[str, Any]:
        """Writes the vectors of all items as of the end of the log, their ids, and the index."""
        moment = moment_after(self.dataset)
        columns = catalogue_questions.catalogue_at(self.dataset, self.data, self.features, moment)
        found = predict(BatchSource(columns, self.eval.batch_size, shuffle=False))[ITEM]
        vectors = np.concatenate([np.zeros_like(found[:1]), found])
        if hosts.is_first():
            partial = workdir / f"{VECTORS}.tmp"
            with open(partial, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
            os.replace(partial, workdir / VECTORS)
            ids = json.dumps(self.dataset.items.illust_id, ensure_ascii=False)
            results.write_text(workdir / IDS, ids + "\n")
            if self.exported.index != "none":
                vector_index.write(self.exported.index, vectors, workdir)
        return {
            "vector_width": vectors.shape[1],
            "index": self.exported.index,
            "hash_tables": collisions.summary(
                self.data.schema, self.dataset.items, self.dataset.users
            ),
        }

    def show(self, summary: Mapping[str, Any], console: Console) -> None:
        """Prints metrics of both parts beside popularity's."""
        simulated = " (simulated bookmarks)" if summary.get("simulated") else ""
        title = f"{summary['source']}{simulated}: which of {summary['catalogue']:,} items"
        table = Table(title=f"{title}, ± half a 95 % interval", title_justify="left")
        table.add_column("")
        parts = tuple(results.PARTS.values())
        for header in (*parts, *BASELINES):
            table.add_column(header.replace("_", " "), justify="right")
        columns = [summary[part] for part in parts] + [summary[name]["test"] for name in BASELINES]
        for metric in (name for name in summary["test"] if not name.endswith(("_low", "_high"))):
            cells = [results.with_half_width(values, metric) for values in columns]
            table.add_row(metric.replace("_", " "), *cells)
        console.print(table)
        for part in parts:
            console.print(
                f"{part}: {summary['bookmarks'][part]:,} bookmarks, "
                f"{summary['cold_share'][part]:.1%} of items that no training example has (cold)."
            )
        console.print(
            "On test, one list for everybody. popularity: by bookmarks before the part. last 7 "
            "days: by those of the week before each bookmark. newest: by publication."
        )
        if "hash_tables" in summary:  # of a finished run
            collisions.show(summary["hash_tables"], console)


def assemble(config: ConfigDict, console: Console, blank: Path | None = None) -> RetrievalJob:
    """Checks a config and makes what it names, the data set and the bank first.

    Args:
        config: As get_config() gives it.
        console: Where tables and notices go.
        blank: See `bookmarks.joined`.

    Raises:
        ValueError: A key or value that is not known, or data that cannot be used.
    """
    made = sections.read(config, SECTIONS)
    if made["train"].micro_batches != 1:
        raise ValueError(
            f"config.train.micro_batches: got {made['train'].micro_batches}, expected 1: the items "
            "of a batch are each other's negatives; use a smaller config.train.batch_size"
        )
    sections.check_on_device(made["features"], "the whole catalogue is ranked there")
    found = bookmarks.joined(made, console, blank)
    towers = dataclasses.replace(made["model"], **shape_of(found.data.schema))
    return RetrievalJob(
        config,
        found.dataset,
        found.data,
        RetrievalTask(found.data, towers, made["objective"], publication.days(found.dataset)[1]),
        sections.fit_config(made),
        made["extract"],
        made["features"],
        made["eval"],
        made["export"],
    )
