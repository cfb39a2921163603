"""Is one ranker better than another? A paired bootstrap over users."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num, Shaped

from umair_jax.training import metrics


def draws_of(
    label: Num[np.ndarray, " E"],
    user: Shaped[np.ndarray, " E"],
    probabilities: Sequence[Float[np.ndarray, " E"]],
    draws: int,
    seed: int = 0,
) -> dict[str, Float[np.ndarray, " draws"]]:
    """AUC and log loss of resampled users, mean over a ranker's seeds.

    The users of draw k are the same for every ranker that is given the same examples.

    Args:
        label: 0 or 1.
        user: Whose example it is.
        probabilities: Predictions of each seed.
        draws: Number of draws.
        seed: Seed of the draws.
    """
    found = [
        metrics.bootstrap(label, p, user, ("auc", "log_loss"), draws, seed) for p in probabilities
    ]
    return {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}


def p_value(difference: Float[np.ndarray, " draws"]) -> float:
    """Two-sided p of "no difference", at least 2 / (draws + 1).

    Source: Davison and Hinkley, Bootstrap Methods (1997), section 4.4: the share of draws on the
    wrong side of zero, and the observation itself counted among them.
    """
    known = difference[np.isfinite(difference)]
    low, high = (known <= 0).sum(), (known >= 0).sum()
    return float(min(1.0, 2 * (min(low, high) + 1) / (len(known) + 1)))
