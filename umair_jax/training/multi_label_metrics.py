"""Exact metrics of predictions with many labels, in numpy float64.

Tied scores never depend on the order of examples or labels: average precision takes all examples
of one score at once, precision@k the mean over all orders of the tied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Num


def evaluate(
    label: Bool[np.ndarray, "E T"],
    probability: Float[np.ndarray, "E T"],
    threshold: float = 0.5,
    cutoffs: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """All metrics.

    Args:
        label: Which labels each example has.
        probability: Of each label, in [0, 1].
        threshold: From which probability on a label counts as predicted, for F1.
        cutoffs: The k of precision@k.

    Returns:
        ``map``, the mean average precision over labels that some example has; ``micro_f1`` and
        ``macro_f1`` (labels that neither are there nor are predicted left out);
        ``best_micro_f1``, at the threshold that suits these very examples best;
        ``precision_at_<k>`` over examples with a label.

    Raises:
        ValueError: Different shapes, or no examples.
    """
    if label.shape != probability.shape or not label.size:
        raise ValueError(
            f"multi-label metrics: got labels {label.shape} and probabilities {probability.shape}; "
            "expected the same shape [examples, labels], not empty"
        )
    precision = average_precision(label, probability)
    predicted = probability >= threshold
    hits = (predicted & label).sum(0).astype(np.float64)
    marked = (predicted.sum(0) + label.sum(0)).astype(np.float64)
    met = marked > 0
    result = {
        "map": float(np.nanmean(precision)) if np.isfinite(precision).any() else float("nan"),
        "micro_f1": float(2 * hits.sum() / max(marked.sum(), 1)),
        "macro_f1": float((2 * hits[met] / marked[met]).mean()) if met.any() else 0.0,
        "best_micro_f1": _best_f1(label.ravel(), probability.ravel()),
    }
    return result | {f"precision_at_{k}": precision_at_k(label, probability, k) for k in cutoffs}


def average_precision(
    label: Bool[np.ndarray, "E T"], score: Float[np.ndarray, "E T"]
) -> Float[np.ndarray, " T"]:
    """Average precision of each label, sum of (R_n - R_{n-1}) P_n; NaN where nobody has it."""
    result = np.full(label.shape[1], np.nan)
    for i in np.flatnonzero(label.any(0)):
        found, taken = _counts(label[:, i], score[:, i])
        gained = np.diff(found, prepend=0)
        result[i] = float((gained * found / taken).sum() / found[-1])
    return result


def precision_at_k(
    label: Bool[np.ndarray, "E T"], score: Float[np.ndarray, "E T"], k: int
) -> float:
    """Share of the k labels of highest score that are there, over examples with any label."""
    k = min(k, label.shape[1])
    some = label.any(1)
    if not some.any():
        return float("nan")
    label, score = label[some], score[some]
    edge = -np.partition(-score, k - 1, axis=1)[:, k - 1 : k]
    above, tied = score > edge, score == edge
    room = k - above.sum(1)
    chance = (tied & label).sum(1) * room / tied.sum(1)
    return float((((above & label).sum(1) + chance) / k).mean())


def table(
    names: Sequence[str],
    train_counts: Num[np.ndarray, " T"],
    label: Bool[np.ndarray, "E T"],
    probability: Float[np.ndarray, "E T"],
    threshold: float = 0.5,
) -> list[dict[str, object]]:
    """One line a label: its counts, average precision, and precision and recall at a threshold.

    What is not defined (no example has it, none is predicted) is None.
    """
    precision = average_precision(label, probability)
    predicted = probability >= threshold
    hits, marked, there = (x.sum(0) for x in (predicted & label, predicted, label))
    return [
        {
            "tag": name,
            "train": int(train_counts[i]),
            "examples": int(there[i]),
            "average_precision": None if np.isnan(precision[i]) else float(precision[i]),
            "precision": float(hits[i] / marked[i]) if marked[i] else None,
            "recall": float(hits[i] / there[i]) if there[i] else None,
        }
        for i, name in enumerate(names)
    ]


def _counts(
    label: Bool[np.ndarray, " E"], score: Float[np.ndarray, " E"]
) -> tuple[Float[np.ndarray, " G"], Float[np.ndarray, " G"]]:
    """At each different score, from the highest: labels found, and examples taken."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    return np.cumsum(label[order])[last].astype(np.float64), last + 1.0


def _best_f1(label: Bool[np.ndarray, " E"], score: Float[np.ndarray, " E"]) -> float:
    if not label.any():
        return 0.0
    found, taken = _counts(label, score)
    return float((2 * found / (taken + found[-1])).max())
