"""The list itself: the best, not too many of one artist, not too much of the same."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

# Diversity looks at so many times the length of the list, of the best.
_POOL = 10


@dataclasses.dataclass(frozen=True)
class ChoiceConfig:
    """How a list is made of scores.

    Attributes:
        k: Length of the list.
        per_artist: Drawings of one artist, at most; 0 = any number. Unknown artists are not one.
        diversity: From 0, the best alone, to 1, as unlike each other as can be.
    """

    k: int = 10
    per_artist: int = 0
    diversity: float = 0.0

    def __post_init__(self):
        if self.k < 1 or self.per_artist < 0 or not 0 <= self.diversity <= 1:
            raise ValueError(
                f"got {self}; expected k of 1 or more, per_artist of 0 or more, diversity of 0 to 1"
            )


def choose(
    score: Float[np.ndarray, " K"],
    artists: Sequence[str],
    similar: Callable[[int, Int[np.ndarray, " P"]], Float[np.ndarray, " P"]],
    config: ChoiceConfig,
) -> Int[np.ndarray, " k"]:
    """Places of the chosen among K candidates, in the order in which they are shown.

    Args:
        score: The higher, the better.
        artists: Of every candidate; empty = unknown.
        similar: Of a candidate's place and other places -> likeness in [-1, 1].
        config: See ChoiceConfig.

    Source: maximal marginal relevance, Carbonell and Goldstein 1998: each step takes the largest
    (1 - d) relevance - d (greatest likeness to what is taken), of the 10 k best that an artist's
    number leaves; relevance is the score scaled to 0 .. 1 over these.
    """
    order = np.argsort(-score, kind="stable")
    if not config.diversity:
        return _best(order, artists, config.per_artist, config.k)
    pool = _best(order, artists, config.per_artist, _POOL * config.k)
    low, high = score[pool].min(initial=np.inf), score[pool].max(initial=-np.inf)
    relevance = (score[pool] - low) / (high - low if high > low else 1.0)
    likeness, left = np.zeros(len(pool)), np.ones(len(pool), bool)
    taken: list[int] = []
    while len(taken) < config.k and left.any():
        worth = (1 - config.diversity) * relevance - config.diversity * likeness
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        left[best] = False
        new = similar(int(pool[best]), pool)
        likeness = np.maximum(likeness, new) if taken else new
        taken.append(int(pool[best]))
    return np.array(taken, np.int64)


def _best(
    order: Int[np.ndarray, " K"], artists: Sequence[str], per_artist: int, count: int
) -> Int[np.ndarray, " k"]:
    """The first `count` places of an order, with at most so many of any one artist."""
    if not per_artist:
        return order[:count]
    taken: list[int] = []
    of: Counter[str] = Counter()
    for place in order.tolist():
        if len(taken) == count:
            break
        artist = artists[int(place)]
        if artist and of[artist] == per_artist:
            continue
        of[artist] += 1
        taken.append(place)
    return np.array(taken, np.int64)
