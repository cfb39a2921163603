"""Candidates from a run of two towers: the drawings nearest to a person's vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int
from rich.console import Console

from umair_jax import load_run
from umair_jax.data import catalogue_questions
from umair_jax.data.batches import BatchSource
from umair_jax.data.fold_in import FoldIn
from umair_jax.data.snapshot import moment_after
from umair_jax.jobs.retrieval import RetrievalJob
from umair_jax.load_run import LoadedRun
from umair_jax.models.top_k import top_k
from umair_jax.recommending.person import Person
from umair_jax.tasks.retrieval import ITEM, USER


class TowerRetriever:
    """Searches the whole catalogue, exactly and on the device, for anybody with bookmarks.

    Attributes:
        catalogue: Fingerprint of the catalogue that it searches.
        step: How many updates are behind its towers.
    """

    def __init__(self, run: LoadedRun) -> None:
        """Makes the vectors of all items as of the end of the log.

        Args:
            run: A run of configs/retrieval.py.

        Raises:
            ValueError: It is a run of another task, or people cannot be folded in.
        """
        job = run.job
        if not isinstance(job, RetrievalJob):
            raise ValueError(
                f"retrieval: got a run of the task {job.task.name!r}; expected one of "
                "configs/retrieval.py"
            )
        self._run, self._batch = run, job.eval.batch_size
        self.step = run.step
        self.catalogue = job.dataset.catalogue_fingerprint
        self._moment = moment_after(job.dataset)
        self._fold_in = FoldIn(job.dataset, job.data, job.features)
        self._columns = catalogue_questions.catalogue_at(
            job.dataset, job.data, job.features, self._moment
        )
        source = BatchSource(self._columns, self._batch, shuffle=False)
        found = run.predict(source)[ITEM]
        self._items = jnp.asarray(np.concatenate([np.zeros_like(found[:1]), found]))
        self._search = jax.jit(
            lambda query, allowed, excluded, k: top_k(
                query, self._items, k, allowed=allowed, excluded=excluded
            )[1],
            static_argnums=3,
        )

    def candidates(
        self, people: Sequence[Person], allowed: Sequence[Bool[np.ndarray, " N1"]], count: int
    ) -> list[Int[np.ndarray, " _"]]:
        """At most `count` allowed rows for each of some people, the best first."""
        states = self._fold_in.states([p.bookmarks for p in people], self._moment)
        columns = {name: np.zeros(len(people), c.dtype) for name, c in self._columns.items()}
        columns["user"] = np.array([p.user for p in people], np.int32)
        columns["state"] = np.arange(len(people), dtype=np.int32)
        query = self._run.predict(BatchSource(columns, self._batch, shuffle=False), states)[USER]
        anybody = np.any(allowed, axis=0)
        own = [np.flatnonzero(anybody & ~rows) for rows in allowed]
        # A few lengths only, since each is compiled.
        longest = max(map(len, own))
        excluded = np.full((len(people), 1 << max(longest - 1, 0).bit_length()), -1, np.int32)
        for row, without in zip(excluded, own, strict=True):
            row[: len(without)] = without
        k = min(count, len(self._items))
        found = np.asarray(self._search(query, anybody, excluded, k))
        return [rows[rows >= 0].astype(np.int64) for rows in found]


def load(workdir: str | Path, console: Console) -> TowerRetriever:
    """The retriever of a run's best checkpoint.

    Raises:
        ValueError: There is no such run, or it is of another task.
    """
    return TowerRetriever(load_run.load(workdir, "best", console))
