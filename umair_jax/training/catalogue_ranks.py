"""Where the right item stands among all items of a catalogue: ranks, recall, reciprocal rank.

Items with the same score are never ordered by their rows: the metrics are means over all orders of
the tied, as in metrics.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from umair_jax.training.metrics import draw_users

# Scores in memory at a time (16 MiB).
_BLOCK = 2**22


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Places of the right items.

    Attributes:
        better: Per question, items with a higher score.
        tied: Per question, items with the same score, itself among them.
    """

    better: Int[np.ndarray, " Q"]
    tied: Int[np.ndarray, " Q"]


def ranks(
    score: Callable[[slice], Shaped[np.ndarray, "R N"]],
    allowed: Callable[[slice], Bool[np.ndarray, "R N"]],
    target: Int[np.ndarray, " Q"],
    items: int,
) -> Ranks:
    """Ranks the right item of every question, some questions at a time.

    Args:
        score: Scores of all items for a run of questions; one that is NaN is the best of all where
            it is another item's, the worst where it is the right one's.
        allowed: Which items compete there.
        target: The right item, a column of these.
        items: N.
    """
    better, tied = np.zeros(len(target), np.int64), np.ones(len(target), np.int64)
    at_once = max(1, _BLOCK // max(items, 1))
    for start in range(0, len(target), at_once):
        rows = slice(start, min(start + at_once, len(target)))
        scores, mask = score(rows), allowed(rows)
        own = scores[np.arange(len(scores)), target[rows]][:, None]
        better[rows] = (~(scores <= own) & mask).sum(1)
        tied[rows] = np.maximum(((scores == own) & mask).sum(1), 1)
    return Ranks(better, tied)


def recall_at(found: Ranks, k: int) -> Float[np.ndarray, " Q"]:
    """Share of the orders of the tied in which the right item is among the best k."""
    return np.clip((k - found.better) / found.tied, 0.0, 1.0)


def reciprocal_rank(found: Ranks) -> Float[np.ndarray, " Q"]:
    """Mean of 1 / rank over the orders of the tied."""
    last = found.better + found.tied
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, last.max(initial=0) + 1))])
    return (harmonic[last] - harmonic[found.better]) / found.tied


def summarise(
    found: Ranks,
    user: Shaped[np.ndarray, " Q"],
    cutoffs: Sequence[int],
    draws: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Recall and mean reciprocal rank over all questions, with intervals over users.

    Args:
        found: The ranks.
        user: Whose question it is.
        cutoffs: k of every recall.
        draws: Bootstrap draws of users behind each 95 % interval; 0 leaves the intervals out.
        seed: Seed of the draws.

    Returns:
        "recall_at_<k>", "mrr", and for each of them "<name>_low" and "<name>_high".
    """
    values = {f"recall_at_{k}": recall_at(found, k) for k in cutoffs}
    values["mrr"] = reciprocal_rank(found)
    result = {name: float(each.mean()) for name, each in values.items()}
    if draws:
        ids, code = np.unique(user, return_inverse=True)
        weights = draw_users(len(ids), draws, seed)
        questions = weights @ np.bincount(code, minlength=len(ids))
        for name, each in values.items():
            drawn = weights @ np.bincount(code, each, minlength=len(ids)) / questions
            low, high = np.percentile(drawn, [2.5, 97.5])
            result[f"{name}_low"], result[f"{name}_high"] = float(low), float(high)
    return result
