"""Who asks: somebody of the log, or anybody who names drawings that they like."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from umair_jax.data.dataset import Dataset
from umair_jax.data.fold_in import Bookmarks

_NEWCOMER = "new"


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody to recommend to.

    Attributes:
        name: The user's id in the log; "new" for somebody who is not in it.
        user: Row of the user, 0 for a new one.
        bookmarks: What is known of him, the oldest first.
        shown: Item rows that the log has shown him, bookmarked or not.
    """

    name: str
    user: int
    bookmarks: Bookmarks
    shown: Int32[np.ndarray, " L"]

    @property
    def liked(self) -> Int32[np.ndarray, " L"]:
        """Rows of the bookmarked drawings, the oldest first."""
        return self.bookmarks.item


def of_log(dataset: Dataset, user_id: str, moment: int) -> Person:
    """A user with all bookmarks before a moment.

    Raises:
        ValueError: The log has no such user.
    """
    try:
        user = dataset.users.user_id.index(user_id, 1)
    except ValueError:
        raise ValueError(_unknown("user", user_id, dataset.users.user_id[1:])) from None
    return of_row(dataset, user, moment)


def of_row(dataset: Dataset, user: int, moment: int) -> Person:
    """The same by the user's row, 1 .. U."""
    return _of_rows_of_log(dataset, user, np.flatnonzero(dataset.interactions.user == user), moment)


class Everybody:
    """All users of a log, which is put in order of them once."""

    def __init__(self, dataset: Dataset, moment: int) -> None:
        """Sorts the log.

        Args:
            dataset: With the log.
            moment: Unix seconds; what happened before it is known.
        """
        self._dataset, self._moment = dataset, moment
        user = dataset.interactions.user
        self._order = np.argsort(user, kind="stable")
        self._starts = np.searchsorted(user[self._order], np.arange(len(dataset.users) + 2))

    def __getitem__(self, user: int) -> Person:
        """The user of a row, 1 .. U."""
        mine = self._order[self._starts[user] : self._starts[user + 1]]
        return _of_rows_of_log(self._dataset, user, mine, self._moment)


def _of_rows_of_log(
    dataset: Dataset, user: int, mine: Int[np.ndarray, " R"], moment: int
) -> Person:
    log = dataset.interactions
    mine = mine[log.timestamp[mine] < moment]
    marked = mine[log.label[mine] == 1]
    met = mine if log.sampled is None else mine[~log.sampled[mine]]
    return Person(
        name=dataset.users.user_id[user],
        user=user,
        bookmarks=Bookmarks(log.item[marked], log.timestamp[marked]),
        shown=np.unique(log.item[met]),
    )


def of_likes(dataset: Dataset, likes: Sequence[str], moment: int) -> Person:
    """Somebody new who likes these drawings, the last one most recently.

    Args:
        dataset: The catalogue.
        likes: Ids of drawings ("illust_id"); repetitions count once, at their last place.
        moment: Unix seconds; the likes are taken to be of the seconds just before it.

    Raises:
        ValueError: The catalogue lacks some of them.
    """
    kept = list(dict.fromkeys(reversed(likes)))[::-1]
    rows = np.array([row_of(dataset, like) for like in kept], np.int32)
    return of_rows(rows, moment)


def of_rows(liked: Int32[np.ndarray, " L"], moment: int) -> Person:
    """The same by rows of drawings, each once."""
    times = moment - len(liked) + np.arange(len(liked), dtype=np.int64)
    return Person(_NEWCOMER, 0, Bookmarks(liked, times), liked)


def row_of(dataset: Dataset, illust_id: str) -> int:
    """Row of a drawing.

    Raises:
        ValueError: The catalogue has no such drawing.
    """
    try:
        return dataset.items.illust_id.index(illust_id, 1)
    except ValueError:
        raise ValueError(_unknown("drawing", illust_id, dataset.items.illust_id[1:])) from None


def _unknown(what: str, got: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(got, known[:100_000], n=1, cutoff=0.5)
    hint = f"the nearest is {near[0]!r}" if near else f"the first is {known[0]!r}"
    return f"{what}: got {got!r}; expected one of the {len(known):,} ids; {hint}"
