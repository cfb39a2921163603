"""Bookmarks of a held-out part as questions to the whole catalogue: which item will it be?"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Int64

from umair_jax.data import ranking
from umair_jax.data.dataset import Dataset, Interactions
from umair_jax.data.earlier import Clock, count_below, first_of
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.splits import TRAIN

_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class CatalogueQuestions:
    """Q bookmarks, and what could have been bookmarked in place of each.

    Attributes:
        moment: When the part begins, unix seconds. What is known of the items is from before it,
            and what is known of a user from before the bookmark.
        columns: Columns like those of RankingData, Q + N entries: the bookmarks, then every item
            of the catalogue at the moment.
        user: Per bookmark, the user row.
        item: Per bookmark, the item row.
        cold: Per bookmark, whether no training interaction has the item.
        popularity: Per item, without the placeholder, bookmarks before the moment.
        repeated: Bookmarks left out because the user had bookmarked the item before.
        published: Per item, without the placeholder, unix seconds; -1 = unknown.
        timestamp: Per bookmark, unix seconds.
        earlier: Items of all bookmarks of the log by user and time, and for each question the first
            of its user and one past the last of them that is earlier.
        marks: Time and item of all bookmarks whose counts may be known, in order of time.
    """

    moment: int
    columns: dict[str, np.ndarray]
    user: Int[np.ndarray, " Q"]
    item: Int[np.ndarray, " Q"]
    cold: Bool[np.ndarray, " Q"]
    popularity: Int64[np.ndarray, " N"]
    repeated: int
    published: Int64[np.ndarray, " N"]
    timestamp: Int64[np.ndarray, " Q"]
    earlier: tuple[np.ndarray, np.ndarray, np.ndarray]
    marks: tuple[np.ndarray, np.ndarray]

    def __len__(self) -> int:
        """Q: the number of bookmarks."""
        return len(self.item)

    def allowed(self, rows: slice) -> Bool[np.ndarray, "R N"]:
        """Which items compete for some of the bookmarks, the placeholder left out.

        Those that were published by then (unknown times count as early) and that the user had not
        bookmarked before; the bookmarked item itself always.
        """
        mask = self.published[None, :] <= self.timestamp[rows, None]
        items, first, last = self.earlier
        first, last = first[rows], last[rows]
        count = last - first
        # Places in `items` of all ranges, one after another.
        place = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        mask[np.repeat(np.arange(len(count)), count), items[place] - 1] = False
        mask[np.arange(len(count)), self.item[rows] - 1] = True
        return mask

    def recent(self, rows: slice, days: int = 7) -> Int64[np.ndarray, "R N"]:
        """How often each item was bookmarked in the days before some of the bookmarks.

        Unlike `popularity` it knows what happened since the part began.
        """
        time, item = self.marks
        moments = self.timestamp[rows]  # ascending, as the log is
        first = np.searchsorted(time, moments - days * _DAY)
        last = np.searchsorted(time, moments)
        counts = np.zeros(len(self.published) + 1, np.int64)
        found = np.empty((len(moments), len(self.published)), np.int64)
        low = high = int(first[0]) if len(first) else 0
        for k, (start, stop) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
            np.add.at(counts, item[high:stop], 1)
            np.subtract.at(counts, item[low:start], 1)
            low, high = start, stop
            found[k] = counts[1:]
        return found


def build(
    dataset: Dataset, data: RankingData, config: RankingConfig, part: str
) -> CatalogueQuestions:
    """The bookmarks of a part.

    Args:
        dataset: What `data` was built of.
        data: Interactions ready for a model.
        config: What `data` was built with.
        part: "valid" or "test".

    Raises:
        ValueError: The part has no bookmarks.
    """
    log, rows = dataset.interactions, data.rows(part)
    marked = rows[log.label[rows] == 1]
    first_time = ~_bookmarked_before(log, marked)
    repeated, marked = int((~first_time).sum()), marked[first_time]
    if not len(marked):
        raise ValueError(
            f"{part}: got {len(rows)} interactions without a bookmark; expected some; use more "
            "data, other features.fractions or another features.split"
        )
    moment = int(log.timestamp[rows].min())
    catalogue = catalogue_at(dataset, data, config, moment)
    columns = {
        name: np.concatenate([column[marked], catalogue[name]])
        for name, column in data.columns.items()
    }
    marks = _marks(data, log, config)
    before = log.item[marks[log.timestamp[marks] < moment]]
    popularity = np.maximum(dataset.items.total_bookmarks, 0)
    popularity = popularity + np.bincount(before, minlength=len(popularity))
    seen = np.zeros(len(dataset.items) + 1, bool)
    seen[log.item[data.split == TRAIN]] = True
    return CatalogueQuestions(
        moment=moment,
        columns=columns,
        user=log.user[marked],
        item=log.item[marked],
        cold=~seen[log.item[marked]],
        popularity=popularity[1:],
        repeated=repeated,
        published=dataset.items.published[1:],
        timestamp=log.timestamp[marked],
        earlier=_earlier(log, marked),
        marks=(log.timestamp[marks], log.item[marks]),
    )


def catalogue_at(
    dataset: Dataset, data: RankingData, config: RankingConfig, moment: int
) -> dict[str, np.ndarray]:
    """Columns of every item, without the placeholder, as of a moment; for vectors of items only.

    Args:
        dataset: What `data` was built of.
        data: Interactions ready for a model.
        config: What `data` was built with.
        moment: Unix seconds; counts of the items come from strictly before it.

    Returns:
        Columns of N entries like those of `data`; user and state are placeholders.
    """
    item = np.arange(1, len(dataset.items) + 1, dtype=np.int32)
    return ranking.columns_at(dataset, data, config, user=0, state=0, item=item, moment=moment)


def _bookmarked_before(log: Interactions, rows: Int[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
    """Whether the user of each interaction had bookmarked its item before its second."""
    marked = np.flatnonzero(log.label == 1)
    pair = log.user.astype(np.int64) * (int(log.item.max(initial=0)) + 1) + log.item
    # The log is in order of time: the first of each pair is its earliest.
    pairs, first = np.unique(pair[marked], return_index=True)
    earliest = log.timestamp[marked[first]]
    return earliest[np.searchsorted(pairs, pair[rows])] < log.timestamp[rows]


def _earlier(
    log: Interactions, rows: Int[np.ndarray, " R"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items of all bookmarks by user and time, and the range of those before each interaction."""
    marked = np.flatnonzero(log.label == 1)
    marked = marked[np.lexsort((log.timestamp[marked], log.user[marked]))]
    user = log.user.astype(np.int64)
    key = Clock.of(user, log.timestamp).key(user, log.timestamp)
    first = first_of(user[marked], user[rows])
    return log.item[marked], first, count_below(key[marked], key[rows])


def _marks(data: RankingData, log: Interactions, config: RankingConfig) -> Int[np.ndarray, " M"]:
    """Bookmarks whose counts may be known, ascending; as in interests.popularity_as_of."""
    visible = (data.split == TRAIN) | (config.split == "temporal")
    return np.flatnonzero((log.label == 1) & visible)
