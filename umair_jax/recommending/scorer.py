"""A trained ranker that scores any drawings for any people, as of one moment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from umair_jax.data import catalogue_questions
from umair_jax.data.batches import BatchSource
from umair_jax.data.fold_in import FoldIn
from umair_jax.load_run import LoadedRun
from umair_jax.models.ranker import RankerConfig
from umair_jax.recommending.person import Person
from umair_jax.recommending.sides import Sides


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the ranker says of K drawings for one person.

    Attributes:
        item: Rows of the drawings.
        probability: Of a bookmark.
        weights: Of the modalities, M = 0 for a ranker that gives them none.
    """

    item: Int[np.ndarray, " K"]
    probability: Float32[np.ndarray, " K"]
    weights: Float32[np.ndarray, "K M"]


class Scorer:
    """Calls the ranker with people's states as of the moment and counts of the items likewise."""

    def __init__(self, run: LoadedRun, moment: int) -> None:
        """Counts every item's views and bookmarks before the moment, once.

        Args:
            run: A run of a ranker.
            moment: Unix seconds.

        Raises:
            ValueError: People cannot be folded in, see FoldIn.
        """
        job = run.bookmarks
        self._run, self._batch, self.moment = run, job.eval.batch_size, moment
        self._modalities = len(job.task.modality_names)
        self._fold_in = FoldIn(job.dataset, job.data, job.features)
        self._columns = catalogue_questions.catalogue_at(
            job.dataset, job.data, job.features, moment
        )
        self._sides = None
        if isinstance(job.task.config, RankerConfig):
            self._sides = Sides(run, self._columns, self._batch)

    def __call__(
        self, people: Sequence[Person], items: Sequence[Int[np.ndarray, " _"]]
    ) -> list[Scores]:
        """Scores some drawings for each of some people.

        Args:
            people: P people; every other P is compiled anew.
            items: Rows of each one's drawings, 1 .. N.

        Returns:
            By person.
        """
        counts = [len(rows) for rows in items]
        if not sum(counts):
            return [self._empty(rows) for rows in items]
        who = np.repeat(np.arange(len(people), dtype=np.int32), counts)
        place = np.concatenate(items) - 1  # columns have no row 0
        users = np.array([p.user for p in people], np.int32)
        states = self._fold_in.states([p.bookmarks for p in people], self.moment)
        if self._sides is not None:
            found = self._sides(users, states, who, place)
        else:
            columns = {name: column[place] for name, column in self._columns.items()}
            columns |= {"user": users[who], "state": who}
            found = self._run.predict(BatchSource(columns, self._batch, shuffle=False), states)
        ends = np.cumsum(counts)[:-1]
        parts = (np.split(found[name], ends) for name in ("probability", "weights"))
        return [Scores(*one) for one in zip(items, *parts, strict=True)]

    def _empty(self, rows: Int[np.ndarray, " K"]) -> Scores:
        return Scores(rows, np.zeros(0, np.float32), np.zeros((0, self._modalities), np.float32))
