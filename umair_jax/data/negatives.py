"""Negatives for logs that hold bookmarks only."""

from __future__ import annotations

import dataclasses

import numpy as np

from umair_jax.data.dataset import Interactions, Items
from umair_jax.data.earlier import Clock, count_below

STRATEGIES = ("uniform", "popularity")
_ROUNDS = 30


def sample_negatives(
    interactions: Interactions,
    items: Items,
    strategy: str = "uniform",
    per_positive: int = 4,
    seed: int = 0,
) -> Interactions:
    """Adds sampled negatives to a log.

    Every bookmark gets negatives of the same user at the same second: items that the user has not
    bookmarked by then, that were published by then (where that is known), and no item twice for
    one user in one second. Where fewer items are left, fewer are added. What is bookmarked later
    may be drawn: were it spared, a negative among the training examples would tell that its item
    is no positive among the test examples.

    Args:
        interactions: The log; its own zeros stay.
        items: The catalogue.
        strategy: uniform: any item alike. popularity: the items of other, strictly earlier
            bookmarks; uniform before the first.
        per_positive: Negatives per bookmark, 1 or more.
        seed: Seed of the sampling.

    Returns:
        The larger log, in order, with `sampled` marking the new rows.

    Raises:
        ValueError: An unknown strategy, per_positive below 1, or a log with true probabilities,
            which nobody knows for sampled rows.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"got the strategy {strategy!r}; expected {' or '.join(STRATEGIES)}")
    if per_positive < 1:
        raise ValueError(f"got {per_positive} negatives per bookmark; expected 1 or more")
    if interactions.true_probability is not None:
        raise ValueError("got a simulated log; expected a real one; it has negatives already")
    log = dataclasses.replace(
        interactions,
        sampled=np.zeros(len(interactions), bool)
        if interactions.sampled is None
        else interactions.sampled,
    )
    rows = np.flatnonzero(log.label == 1)
    rows = rows[np.lexsort((log.item[rows], log.user[rows], log.timestamp[rows]))]
    positive = log.take(rows)
    item, place = _Sampler(log, rows, items, seed).draw(strategy, per_positive)
    negative = Interactions(
        user=positive.user[place],
        item=item.astype(np.int32),
        timestamp=positive.timestamp[place],
        label=np.zeros(len(place), np.int8),
        sampled=np.ones(len(place), bool),
    )
    return Interactions(
        **{
            name: np.concatenate([getattr(log, name), getattr(negative, name)])
            for name in ("user", "item", "timestamp", "label", "sampled")
        }
    ).ordered()


class _Sampler:
    """Draws items for the bookmarks `rows` of a log, and draws again what may not stand."""

    def __init__(self, log: Interactions, rows: np.ndarray, items: Items, seed: int):
        self.rng = np.random.default_rng(seed)
        self.width = len(items) + 1
        self.positive = positive = log.take(rows)
        # In order of time, so the first of equal pairs is the earliest.
        self.liked, first = np.unique(self._pair(positive.user, positive.item), return_index=True)
        self.liked_at = positive.timestamp[first]
        # One number per (user, second): within it no item comes twice, nor one that was shown.
        moments = Clock.of(log.user, log.timestamp).key(log.user, log.timestamp)
        moment = np.unique(moments, return_inverse=True)[1].reshape(-1)
        self.moment = moment[rows]
        self.taken = np.sort(self._pair(moment, log.item))
        # Items in order of publication: a prefix of them exists at any time. -1, unknown, is among
        # the first.
        self.by_age = np.argsort(items.published[1:], kind="stable") + 1
        self.existing = np.searchsorted(
            items.published[self.by_age], positive.timestamp, side="right"
        )
        self.published = items.published
        self.earlier = np.searchsorted(positive.timestamp, positive.timestamp, side="left")

    def draw(self, strategy: str, per_positive: int) -> tuple[np.ndarray, np.ndarray]:
        """Item rows, and the number of the bookmark that each belongs to."""
        place = np.repeat(np.arange(len(self.moment)), per_positive)
        chosen = np.zeros(len(place), np.int64)
        left = np.flatnonzero(self.existing[place] > 0)  # before the first item there is none
        for tries in range(2 * _ROUNDS):
            if not len(left):
                break
            # Where the popular ones are all taken, any other item has to do.
            popular = strategy == "popularity" and tries < _ROUNDS
            drawn = self._propose(place[left], popular)
            good = self._allowed(drawn, place[left])
            chosen[left[good]] = drawn[good]
            self._take(place[left[good]], drawn[good])
            left = left[~good]
        for slot in left:  # few: somebody who has nearly everything, or a young catalogue
            every = np.arange(1, self.width)
            at = np.full(len(every), place[slot])
            free = every[self._allowed(every, at)]
            if len(free):
                chosen[slot] = self.rng.choice(free)
                self._take(place[slot : slot + 1], chosen[slot : slot + 1])
        filled = chosen > 0
        return chosen[filled], place[filled]

    def _pair(self, owner: np.ndarray, item: np.ndarray) -> np.ndarray:
        return owner.astype(np.int64) * self.width + item

    def _take(self, at: np.ndarray, item: np.ndarray) -> None:
        self.taken = np.sort(np.concatenate([self.taken, self._pair(self.moment[at], item)]))

    def _propose(self, at: np.ndarray, popular: bool) -> np.ndarray:
        existing = self.existing[at]
        drawn = self.by_age[self.rng.integers(0, np.maximum(existing, 1))]
        if popular:
            earlier = self.earlier[at]
            some = self.rng.integers(0, np.maximum(earlier, 1))
            drawn = np.where(earlier > 0, self.positive.item[some], drawn)
        return drawn

    def _allowed(self, drawn: np.ndarray, at: np.ndarray) -> np.ndarray:
        good = self.published[drawn] <= self.positive.timestamp[at]
        good &= ~self._liked_by_then(drawn, at)
        slot = self._pair(self.moment[at], drawn)
        good &= _found(self.taken, slot) < 0
        first = np.zeros(len(slot), bool)
        first[np.unique(slot, return_index=True)[1]] = True
        return good & first

    def _liked_by_then(self, drawn: np.ndarray, at: np.ndarray) -> np.ndarray:
        place = _found(self.liked, self._pair(self.positive.user[at], drawn))
        return (place >= 0) & (self.liked_at[place] <= self.positive.timestamp[at])


def _found(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted number stands in sorted keys, one or more of them; -1: nowhere."""
    place = np.minimum(count_below(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
