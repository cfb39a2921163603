"""How soon a ranker knows somebody new: the same examples, judged after more and more bookmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Int, Int64

from umair_jax.data.dataset import Dataset
from umair_jax.data.fold_in import Bookmarks
from umair_jax.data.ranking import RankingData
from umair_jax.data.splits import TEST
from umair_jax.training.metrics import evaluate_predictions

COUNTS = (0, 1, 2, 5, 10, 20)


@dataclasses.dataclass(frozen=True)
class Newcomers:
    """People who are judged as if nobody knew them, and what they are judged by.

    Attributes:
        first: The first bookmarks of each, as many as the largest count.
        rows: Their interactions after these, of the test part; ascending.
        place: Which of the people each of the rows belongs to.
    """

    first: tuple[Bookmarks, ...]
    rows: Int[np.ndarray, " E"]
    place: Int[np.ndarray, " E"]

    @property
    def moment(self) -> Int64[np.ndarray, " P"]:
        """When the last of the first bookmarks is known, in unix seconds."""
        return np.array([1 + one.timestamp.max(initial=-1) for one in self.first], np.int64)

    def after(self, count: int) -> list[Bookmarks]:
        """What is known after so many bookmarks: the latest of the first ones."""
        return [
            Bookmarks(one.item[len(one.item) - count :], one.timestamp[len(one.item) - count :])
            for one in self.first
        ]


def find(dataset: Dataset, data: RankingData, most: int) -> Newcomers:
    """Everybody with `most` bookmarks and with test examples later than these.

    Raises:
        ValueError: There is nobody.
    """
    log = dataset.interactions
    first, rows, place = [], [], []
    for user in np.unique(log.user[data.split == TEST]):
        mine = np.flatnonzero(log.user == user)
        marked = mine[log.label[mine] == 1][:most]
        if len(marked) < most:
            continue
        begins = log.timestamp[marked[-1]] if most else -1
        later = mine[(data.split[mine] == TEST) & (log.timestamp[mine] > begins)]
        if len(later):
            place.append(np.full(len(later), len(first)))
            first.append(Bookmarks(log.item[marked], log.timestamp[marked]))
            rows.append(later)
    if not first:
        raise ValueError(
            f"got nobody in the test part with {most} bookmarks and examples after them; expected "
            "some: use a larger log, or smaller counts"
        )
    order = np.argsort(np.concatenate(rows), kind="stable")
    return Newcomers(tuple(first), np.concatenate(rows)[order], np.concatenate(place)[order])


def measure(
    dataset: Dataset,
    data: RankingData,
    predict: Callable[[Newcomers, list[Bookmarks]], Float32[np.ndarray, " E"]],
    counts: Sequence[int],
    draws: int,
) -> dict[int, dict[str, float]]:
    """Metrics of the same examples by the number of bookmarks that the ranker may know.

    Args:
        dataset: The log.
        data: Its splits.
        predict: Of people and their bookmarks -> probabilities of the people's rows.
        counts: Numbers of bookmarks, ascending.
        draws: Bootstrap draws behind each interval; 0 = no intervals.

    Returns:
        By number of bookmarks, what evaluate_predictions gives, with "users" and "examples".

    Raises:
        ValueError: Counts are not ascending, or nobody has enough bookmarks.
    """
    if not counts or counts[0] < 0 or any(np.diff(counts) <= 0):
        raise ValueError(f"counts: got {tuple(counts)}; expected ascending numbers from 0")
    found = find(dataset, data, counts[-1])
    label, user = (column[found.rows] for column in (data.columns["label"], data.columns["user"]))
    sizes = {"users": len(found.first), "examples": len(found.rows)}
    return {
        count: {
            **evaluate_predictions(label, predict(found, found.after(count)), user, draws),
            **sizes,
        }
        for count in counts
    }
