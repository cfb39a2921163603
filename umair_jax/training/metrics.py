"""Exact metrics of click and bookmark predictions, with bootstrap intervals over users.

Plain numpy in float64. Ties between scores are never broken by the order of the examples: AUC
counts a tied pair as one half, and the ranking metrics take the mean over all orders of the tied
examples. The bootstrap resamples users, not examples, because the examples of one user are not
independent; a draw gives each user a whole-number weight, so that one sort serves all draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Num, Shaped

CUTOFF = 10
BINS = 15
# The weighted AUC works on arrays of at most this many entries (64 MiB).
_BLOCK = 2**23
# From so many draws on, counting pairs of users once costs less than sums over examples each time.
_MANY_DRAWS = 32
_TINY = 1e-7

Weights = np.ndarray  # [draws, E or U], whole numbers


def evaluate_predictions(
    label: Num[np.ndarray, " E"],
    probability: Float[np.ndarray, " E"],
    user: Shaped[np.ndarray, " E"],
    draws: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """All metrics, each with its 95 % interval.

    Args:
        label: 0 or 1.
        probability: predicted probability of label 1, in [0, 1].
        user: whose example it is; any sortable type.
        draws: bootstrap draws; 0 leaves the intervals out.
        seed: seed of the draws.

    Returns:
        ``auc``, ``log_loss``, ``gauc``, ``ndcg_at_10``, ``recall_at_10``, ``ece``, and for each
        of them ``<name>_low`` and ``<name>_high`` (2.5 % and 97.5 % points). A metric that the
        examples do not define (AUC of a single class) is NaN.

    Raises:
        ValueError: no examples, different lengths, labels other than 0 and 1, or probabilities
            outside [0, 1] or NaN.
    """
    label, probability = _checked(label, probability)
    if len(user) != len(label):
        raise ValueError(f"got {len(label)} labels but {len(user)} users; give one an example")
    ids, code = np.unique(user, return_inverse=True)
    users = len(ids)
    ones = np.ones((1, users))
    functions = _prepare(label, probability, code, users)
    result = {name: float(function(ones)[0]) for name, function in functions.items()}
    if not draws:
        return result
    weights = draw_users(users, draws, seed)
    for name, function in functions.items():
        values = function(weights)
        known = values[np.isfinite(values)]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        result[f"{name}_low"], result[f"{name}_high"] = float(low), float(high)
    return result


def bootstrap(
    label: Num[np.ndarray, " E"],
    probability: Float[np.ndarray, " E"],
    user: Shaped[np.ndarray, " E"],
    names: Sequence[str],
    draws: int,
    seed: int = 0,
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Metrics of resampled users, draw by draw.

    The users of draw k follow from the users of the examples and the seed alone, so that the
    draws of several predictions for the same examples are paired.

    Args:
        label: 0 or 1.
        probability: predicted probability of label 1, in [0, 1].
        user: whose example it is; any sortable type.
        names: metrics, of those of evaluate_predictions.
        draws: bootstrap draws.
        seed: seed of the draws.

    Returns:
        Metric -> its value in every draw.

    Raises:
        ValueError: as evaluate_predictions.
    """
    label, probability = _checked(label, probability)
    ids, code = np.unique(user, return_inverse=True)
    functions = _prepare(label, probability, code, len(ids))
    weights = draw_users(len(ids), draws, seed)
    return {name: functions[name](weights) for name in names}


def draw_users(users: int, draws: int, seed: int) -> Float[np.ndarray, "draws U"]:
    """How often each user is in each draw of the bootstrap; whole numbers, rows sum to U."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(users, np.full(users, 1 / users), size=draws).astype(np.float64)


def auc(label: Num[np.ndarray, " E"], score: Num[np.ndarray, " E"]) -> float:
    """Area under the ROC curve; tied pairs count one half; NaN when one class is missing."""
    label = np.asarray(label, np.float64)
    return float(_auc(label, np.asarray(score), np.arange(len(label)))(np.ones((1, len(label))))[0])


def log_loss(label: Num[np.ndarray, " E"], probability: Float[np.ndarray, " E"]) -> float:
    """Mean binary cross-entropy in nats; probabilities are kept 1e-7 away from 0 and 1."""
    return float(np.mean(_cross_entropy(*_checked(label, probability))))


def gauc(
    label: Num[np.ndarray, " E"], score: Num[np.ndarray, " E"], user: Shaped[np.ndarray, " E"]
) -> float:
    """AUC within each user, averaged over users with both classes, weighted by their examples.

    Source: Zhou et al., Deep Interest Network (2018), equation 7 (weights: impressions).
    """
    ids, code = np.unique(user, return_inverse=True)
    values, examples = _auc_per_user(np.asarray(label, np.float64), score, code, len(ids))
    return float(_mean_over_users(values, examples)(np.ones((1, len(ids))))[0])


def ndcg_at_k(
    label: Num[np.ndarray, " E"],
    score: Num[np.ndarray, " E"],
    user: Shaped[np.ndarray, " E"],
    k: int = CUTOFF,
) -> float:
    """NDCG@k of each user's examples, averaged over the users with a positive."""
    ids, code = np.unique(user, return_inverse=True)
    values, _ = _ranking(np.asarray(label, np.float64), score, code, len(ids), k)
    return float(_mean_over_users(values, np.ones(len(ids)))(np.ones((1, len(ids))))[0])


def recall_at_k(
    label: Num[np.ndarray, " E"],
    score: Num[np.ndarray, " E"],
    user: Shaped[np.ndarray, " E"],
    k: int = CUTOFF,
) -> float:
    """Share of a user's positives among the k highest scores, averaged over users with one."""
    ids, code = np.unique(user, return_inverse=True)
    _, values = _ranking(np.asarray(label, np.float64), score, code, len(ids), k)
    return float(_mean_over_users(values, np.ones(len(ids)))(np.ones((1, len(ids))))[0])


def ece(
    label: Num[np.ndarray, " E"], probability: Float[np.ndarray, " E"], bins: int = BINS
) -> float:
    """Expected calibration error over equal-width bins of the predicted probability, in [0, 1].

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), equation 5, for the
    probability of label 1.
    """
    label, probability = _checked(label, probability)
    code = np.zeros(len(label), np.int64)
    return float(_calibration(label, probability, code, 1, bins)(np.ones((1, 1)))[0])


def _prepare(
    label: np.ndarray, probability: np.ndarray, code: np.ndarray, users: int
) -> dict[str, Callable[[Weights], np.ndarray]]:
    """Name -> function of user weights [draws, U] that returns the metric of each draw."""
    counts = np.bincount(code, minlength=users).astype(np.float64)
    loss = np.bincount(code, _cross_entropy(label, probability), minlength=users)
    per_user, examples = _auc_per_user(label, probability, code, users)
    ndcg, recall = _ranking(label, probability, code, users, CUTOFF)
    equal = np.ones(users)
    return {
        "auc": _auc(label, probability, code),
        "log_loss": lambda weights: (weights @ loss) / (weights @ counts),
        "gauc": _mean_over_users(per_user, examples),
        "ndcg_at_10": _mean_over_users(ndcg, equal),
        "recall_at_10": _mean_over_users(recall, equal),
        "ece": _calibration(label, probability, code, users, BINS),
    }


def _checked(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label, probability = np.asarray(label, np.float64), np.asarray(probability, np.float64)
    if not len(label):
        raise ValueError("no examples to evaluate")
    if len(label) != len(probability):
        raise ValueError(f"got {len(label)} labels but {len(probability)} probabilities")
    wrong = np.flatnonzero((label != 0) & (label != 1))
    if len(wrong):
        raise ValueError(f"labels must be 0 or 1, got {label[wrong[0]]} at example {wrong[0]}")
    wrong = np.flatnonzero(~((probability >= 0) & (probability <= 1)))
    if len(wrong):
        raise ValueError(
            f"probabilities must lie in [0, 1], got {probability[wrong[0]]} at example {wrong[0]}"
        )
    return label, probability


def _cross_entropy(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, _TINY, 1 - _TINY)
    return -np.where(label > 0, np.log(clipped), np.log1p(-clipped))


def _auc(label: np.ndarray, score: np.ndarray, code: np.ndarray) -> Callable[[Weights], np.ndarray]:
    """Weighted AUC of each draw, pairs of users at a time if that is less work.

    All sums are of whole and half numbers, so that both ways agree to the last bit.
    """
    users = int(code.max()) + 1

    def function(weights: Weights) -> np.ndarray:
        if len(weights) < _MANY_DRAWS or users**2 > _BLOCK:
            won, pairs = _won_by_examples(label, score, code, weights)
        else:
            won = np.einsum("du,du->d", weights @ _won_by_users(label, score, code), weights)
            ups = weights @ np.bincount(code, label, minlength=users)
            pairs = ups * (weights @ np.bincount(code, 1 - label, minlength=users))
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    return function


def _won_by_examples(
    label: np.ndarray, score: np.ndarray, code: np.ndarray, weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs won and all pairs of each draw: one sort, then sums within groups of equal score."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    ranked_code, positive = code[order], label[order]
    won, pairs = [], []
    block = max(1, _BLOCK // len(order))
    for first in range(0, len(weights), block):
        each = weights[first : first + block][:, ranked_code]
        up = np.add.reduceat(each * positive, starts, axis=1)
        down = np.add.reduceat(each, starts, axis=1) - up
        below = np.cumsum(down, axis=1) - down
        won.append(np.einsum("dg,dg->d", up, below + 0.5 * down))
        pairs.append(up.sum(axis=1) * down.sum(axis=1))
    return np.concatenate(won), np.concatenate(pairs)


def _won_by_users(
    label: np.ndarray, score: np.ndarray, code: np.ndarray
) -> Float[np.ndarray, "U U"]:
    """Negatives of one user (column) below positives of another (row); a tied pair is one half."""
    order = np.argsort(score, kind="stable")
    ups, downs = (order[label[order] == value] for value in (1, 0))
    users = int(code.max()) + 1
    won = np.zeros((users, users))
    for side in ("left", "right"):  # negatives below a positive; and those tied with it too
        below, done = np.zeros(users), 0
        limits = np.searchsorted(score[downs], score[ups], side)
        # One addition of U numbers a positive, once for all draws.
        for user, limit in zip(code[ups].tolist(), limits.tolist(), strict=True):
            if limit > done:
                np.add.at(below, code[downs[done:limit]], 0.5)
                done = limit
            won[user] += below
    return won


def _auc_per_user(
    label: np.ndarray, score: np.ndarray, code: np.ndarray, users: int
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
    """AUC of each user (NaN for one class only) and the number of the user's examples."""
    order, group, first = _tie_groups(code, score)
    sizes = np.bincount(group).astype(np.float64)
    begin = np.cumsum(sizes) - sizes
    start = begin - first[code[order][begin.astype(np.int64)]]
    rank = (start + (sizes + 1) / 2)[group]  # mean rank of the tied, from 1, within the user
    ranked_code, positive = code[order], label[order]
    ups = np.bincount(ranked_code, positive, minlength=users)
    examples = np.bincount(code, minlength=users).astype(np.float64)
    downs = examples - ups
    won = np.bincount(ranked_code, rank * positive, minlength=users) - ups * (ups + 1) / 2
    pairs = ups * downs
    return np.divide(won, pairs, out=np.full(users, np.nan), where=pairs > 0), examples


def _ranking(
    label: np.ndarray, score: np.ndarray, code: np.ndarray, users: int, k: int
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, " U"]]:
    """NDCG@k and recall@k of each user, NaN where the user has no positive."""
    order, group, first = _tie_groups(code, -np.asarray(score, np.float64))
    ranked_code, positive = code[order], label[order]
    place = np.arange(len(order)) - first[ranked_code]  # from 0, within the user
    inside = (place < k).astype(np.float64)
    discount = inside / np.log2(place + 2)
    sizes = np.bincount(group).astype(np.float64)
    # Among the tied every order is as likely: each gets the mean discount of their places.
    gain = (np.bincount(group, discount) / sizes)[group] * positive
    hit = (np.bincount(group, inside) / sizes)[group] * positive
    ups = np.bincount(ranked_code, positive, minlength=users)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])
    best = ideal[np.minimum(ups, k).astype(np.int64)]
    missing = np.full(users, np.nan)
    gains = np.bincount(ranked_code, gain, minlength=users)
    hits = np.bincount(ranked_code, hit, minlength=users)
    ndcg = np.divide(gains, best, out=missing.copy(), where=ups > 0)
    return ndcg, np.divide(hits, ups, out=missing, where=ups > 0)


def _tie_groups(
    code: Int[np.ndarray, " E"], score: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples by (user, score ascending), their group of equal user and score, users' starts."""
    order = np.lexsort((score, code))
    ranked_code, ranked = code[order], np.asarray(score)[order]
    new = np.concatenate(
        [[True], (ranked_code[1:] != ranked_code[:-1]) | (ranked[1:] != ranked[:-1])]
    )
    examples = np.bincount(code)
    return order, np.cumsum(new) - 1, np.cumsum(examples) - examples


def _mean_over_users(values: np.ndarray, importance: np.ndarray) -> Callable[[Weights], np.ndarray]:
    known = np.isfinite(values)
    total, share = np.where(known, values, 0) * importance, known * importance

    def function(weights: Weights) -> np.ndarray:
        below = weights @ share
        missing = np.full(len(below), np.nan)
        return np.divide(weights @ total, below, out=missing, where=below > 0)

    return function


def _calibration(
    label: np.ndarray, probability: np.ndarray, code: np.ndarray, users: int, bins: int
) -> Callable[[Weights], np.ndarray]:
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    cell = code * bins + place
    # |mean label - mean probability| x share of the examples = |sum of differences| / examples.
    gap = np.bincount(cell, label - probability, minlength=users * bins).reshape(users, bins)
    counts = np.bincount(code, minlength=users).astype(np.float64)
    return lambda weights: np.abs(weights @ gap).sum(axis=1) / (weights @ counts)
