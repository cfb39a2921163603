"""People as of a moment, whether the log knows them or not: states made of any list of bookmarks.

A ranker meets a user in two ways: by the id, whose row it has trained, and by the state, which is
made of bookmarks alone. So somebody new needs no training: his bookmarks are folded in as a state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from umair_jax.data.dataset import Dataset, Interactions
from umair_jax.data.interests import Histories, interest_vectors, latest_bookmarks
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import HISTORY, VECTORS, WINDOWS, RankingConfig
from umair_jax.data.ranking_vectors import vector_source
from umair_jax.data.splits import TRAIN
from umair_jax.data.state_rows import StateRows
from umair_jax.data.stored_vectors import restored, stored


@dataclasses.dataclass(frozen=True)
class Bookmarks:
    """What somebody bookmarked.

    Attributes:
        item: Item rows, in any order.
        timestamp: Unix seconds of each.
    """

    item: Int32[np.ndarray, " L"]
    timestamp: Int64[np.ndarray, " L"]


class FoldIn:
    """Makes states for a ranker's context, equal to those that `ranking.build` makes."""

    def __init__(self, dataset: Dataset, data: RankingData, config: RankingConfig) -> None:
        """Prepares what does not depend on people.

        Args:
            dataset: The catalogue.
            data: Schema and context of the ranker.
            config: What `data` was built with.

        Raises:
            ValueError: Users are described by vectors which the items do not have, so that nothing
                can be averaged.
        """
        self._data, self._config = data, config
        self._rows = StateRows(dataset, data.schema)
        self._dense = {
            field.column: vector_source(field)
            for field in data.schema.dense()
            if vector_source(field)[0]
        }
        for column, (_, vector) in self._dense.items():
            if vector not in data.context:
                raise ValueError(
                    f"{column}: got no vectors {vector!r} of the items; expected them in the "
                    "schema, to make means of them for new bookmarks"
                )

    def states(
        self, people: Sequence[Bookmarks], moment: int | Int64[np.ndarray, " P"]
    ) -> dict[str, np.ndarray]:
        """What the ranker reads of people, one state each.

        Args:
            people: Bookmarks of P people; only those strictly before the moment count.
            moment: Unix seconds, of all or of each.

        Returns:
            The arrays [P, ...] of the context that are looked up by state: "state_rows", every
            dense field of the users, and "history" where the context has it.
        """
        histories = self._histories(people, moment)
        liked, place = np.unique(histories.positives_item, return_inverse=True)
        local = dataclasses.replace(histories, positives_item=place.reshape(-1).astype(np.int32))
        means: dict[str, np.ndarray] = {}
        for window, vector in self._dense.values():
            if window + vector in means:
                continue
            there = self._data.context["present"][liked, VECTORS.index(vector)]
            vectors = restored(self._data.context, vector, liked)
            both = interest_vectors(local, vectors, there)
            means |= {w + vector: mean for w, mean in zip(WINDOWS, both, strict=True)}
        found = {
            "state_rows": self._rows(histories),
            **stored({name: means[name] for name in self._dense}, self._config.vector_dtype),
        }
        if HISTORY in self._data.context:
            found[HISTORY] = latest_bookmarks(histories, self._config.history)
        return found

    def _histories(
        self, people: Sequence[Bookmarks], moment: int | Int64[np.ndarray, " P"]
    ) -> Histories:
        """Windows of every person at the moment: states in the order of the people."""
        moments = np.broadcast_to(np.asarray(moment, np.int64), len(people))
        each = np.arange(len(people), dtype=np.int32)
        marks = [len(person.item) for person in people]
        label = np.repeat(np.array([1, 0], np.int8), [sum(marks), len(people)])
        log = Interactions(
            user=np.concatenate([np.repeat(each, marks), each]),
            item=np.concatenate([*(p.item for p in people), np.zeros_like(each)]),
            timestamp=np.concatenate([*(p.timestamp for p in people), moments]),
            label=label,
        )
        # Nothing of what a person says of himself is held out, whatever the split.
        found = self._config.histories(log, np.full(len(label), TRAIN, np.int8))
        return found.at(found.state[sum(marks) :])
