"""Do the weights of the modalities mean something?

Two questions about a trained ranker. Where users are simulated: does somebody who goes by style get
a larger weight on style? And for any data: is a prediction worse without the modality that it
weighed most than without the one that it weighed least?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Num
from scipy.stats import spearmanr

from umair_jax.training import metrics

# What a simulated taste is made of, and the modalities that can tell: tags are content too, and an
# item's artist and popularity are among its own fields.
TASTES: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "content": ((0,), ("content", "text")),
    "style": ((1,), ("style",)),
    "artist and popularity": ((2, 3), ("meta",)),
}


def rank_correlations(
    weights: Float[np.ndarray, "E M"],
    names: Sequence[str],
    user: Int[np.ndarray, " E"],
    mixture: Float32[np.ndarray, "U1 4"],
    at_least: int = 1,
) -> dict[str, float]:
    """Spearman's correlation, over users, between true mixture and mean weight.

    Args:
        weights: Of each example.
        names: The modalities, in the order of the columns.
        user: User row of each example.
        mixture: What the users are made of: content, style, artist, popularity.
        at_least: Examples that a user must have.

    Returns:
        One number in [-1, 1] for each of TASTES whose modalities are there, and "mean" over them;
        NaN where all users have the same mixture or weight.
    """
    users, code, count = np.unique(user, return_inverse=True, return_counts=True)
    sums = np.zeros((len(users), weights.shape[1]))
    np.add.at(sums, code, weights)
    enough = count >= at_least
    means = sums[enough] / count[enough, None]
    truth = mixture[users[enough]]
    found = {}
    for taste, (parts, modalities) in TASTES.items():
        columns = [names.index(name) for name in modalities if name in names]
        if columns:
            mine = means[:, columns].sum(axis=1)
            correlation: Any = spearmanr(truth[:, list(parts)].sum(axis=1), mine)
            found[taste] = float(correlation.statistic)
    return {**found, "mean": float(np.mean(list(found.values())))}


def deletion(
    label: Num[np.ndarray, " E"],
    user: Int32[np.ndarray, " E"],
    whole: Mapping[str, np.ndarray],
    without: Callable[[str], Float[np.ndarray, " E"]],
    names: Sequence[str],
    draws: int = 1000,
) -> dict[str, float]:
    """What a prediction loses without one of its modalities.

    Args:
        label: 0 or 1.
        user: User row of each example.
        whole: "probability" [E] and "weights" [E, M] with everything there.
        without: Modality -> probabilities with it masked for all examples.
        names: The modalities, in the order of the weights.
        draws: Bootstrap draws over users.

    Returns:
        "auc" and "log_loss" with everything; the same with `_without_largest`,
        `_without_smallest` (of each example, the modality with that weight is masked) and
        `_without_<name>`; and `largest_hurts_more_auc`, `largest_hurts_more_log_loss`: how much
        more the largest is missed, with `_low` and `_high`, its 95 % interval over users.
    """
    masked = np.stack([without(name) for name in names], axis=1)
    weights = whole["weights"]
    rows = np.arange(len(label))
    cases = {
        "": whole["probability"],
        "_without_largest": masked[rows, weights.argmax(axis=1)],
        "_without_smallest": masked[rows, weights.argmin(axis=1)],
        **{f"_without_{name}": masked[:, k] for k, name in enumerate(names)},
    }
    found = {}
    for case, probability in cases.items():
        found[f"auc{case}"] = metrics.auc(label, probability)
        found[f"log_loss{case}"] = metrics.log_loss(label, probability.astype(np.float64))
    each = {
        case: metrics.bootstrap(label, cases[case], user, ("auc", "log_loss"), draws)
        for case in ("_without_largest", "_without_smallest")
    }
    for name, sign in (("auc", -1.0), ("log_loss", 1.0)):
        drawn = sign * (each["_without_largest"][name] - each["_without_smallest"][name])
        low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
        key = f"largest_hurts_more_{name}"
        found[key] = sign * (found[f"{name}_without_largest"] - found[f"{name}_without_smallest"])
        found[f"{key}_low"], found[f"{key}_high"] = float(low), float(high)
    return found
