"""Which interactions train, validate and test.

| kind | what is held out | what it answers |
|---|---|---|
| temporal | the last part of the log, for everybody | how good will tomorrow be? |
| leave_last_out | everybody's last bookmark, and what was shown since the one before | next item |
| cold_item | items, with everything that happened to them | drawings nobody has seen yet |
| cold_user | people, with everything that they did | newcomers |
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int8, Int32, Int64

from umair_jax.data.dataset import Dataset, Interactions

KINDS = ("temporal", "leave_last_out", "cold_item", "cold_user")
TRAIN, VALID, TEST = 0, 1, 2
NAMES = {TRAIN: "train", VALID: "valid", TEST: "test"}


def split(
    dataset: Dataset,
    kind: str = "temporal",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Int8[np.ndarray, " I"]:
    """Assigns every interaction of a data set to a split.

    Args:
        dataset: The data set.
        kind: temporal, leave_last_out, cold_item or cold_user.
        fractions: Shares of train, valid and test, positive, with the sum 1: of the interactions
            (temporal), of the items or of the users (cold_*). leave_last_out needs none.
        seed: Which items or users are held out.

    Returns:
        0 train, 1 valid, 2 test per interaction. No kind excludes any (-1 is kept for callers).

    Raises:
        ValueError: An unknown kind, wrong fractions, or a split that would be empty.
    """
    interactions = dataset.interactions
    check(kind, fractions)
    if kind == "temporal":
        result = _temporal(interactions.timestamp, fractions)
    elif kind == "leave_last_out":
        result = _leave_last_out(interactions)
    else:
        rows = interactions.item if kind == "cold_item" else interactions.user
        result = _cold(rows, fractions, seed)
    empty = [NAMES[part] for part in (TRAIN, VALID, TEST) if not (result == part).any()]
    if empty:
        raise ValueError(
            f"the {kind} split of {len(interactions)} interactions leaves {' and '.join(empty)} "
            "empty; expected some in each; use more data, other fractions or another kind"
        )
    return result


def check(kind: str, fractions: tuple[float, float, float]) -> None:
    """Refuses an unknown kind and wrong fractions with a ValueError."""
    if kind not in KINDS:
        raise ValueError(f"got the split {kind!r}; expected one of {', '.join(KINDS)}")
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"got the fractions {fractions}; expected three positive shares with the sum 1"
        )


def counts(assignment: Int8[np.ndarray, " I"]) -> dict[str, int]:
    """Interactions per split, by name."""
    return {name: int((assignment == part).sum()) for part, name in NAMES.items()}


def _temporal(
    timestamp: Int64[np.ndarray, " I"], fractions: tuple[float, float, float]
) -> np.ndarray:
    # What happens in the same second is never divided: nothing of it is known to the rest.
    ordered = np.sort(timestamp)
    if not len(ordered):
        return np.zeros(0, np.int8)
    last = len(ordered) - 1
    valid_from = ordered[min(last, round(fractions[0] * len(ordered)))]
    test_from = ordered[min(last, round((fractions[0] + fractions[1]) * len(ordered)))]
    edges = np.array([valid_from, test_from])
    return np.searchsorted(edges, timestamp, side="right").astype(np.int8)


def _leave_last_out(interactions: Interactions) -> np.ndarray:
    """Counts, per row, the user's distinct bookmark seconds at or after it: 1 test, 2 valid."""
    user, time = interactions.user, interactions.timestamp
    order = np.lexsort((time, user))
    u, t, positive = user[order], time[order], interactions.label[order] == 1
    new_group = np.ones(len(u), bool)
    new_group[1:] = (u[1:] != u[:-1]) | (t[1:] != t[:-1])
    group = np.cumsum(new_group) - 1
    has_positive = np.zeros(group[-1] + 1 if len(group) else 0, bool)
    has_positive[group[positive]] = True
    starts = np.flatnonzero(new_group)
    group_user = u[starts]
    # later[g]: bookmark seconds of this user in group g and after it.
    total = np.cumsum(has_positive[::-1])[::-1]
    last_of_user = np.searchsorted(group_user, group_user, side="right")
    later = total - np.append(total, 0)[last_of_user]
    first_of_user = np.searchsorted(group_user, group_user, side="left")
    enough = later[first_of_user] >= 3  # something must be left to learn from
    part = np.select([later <= 1, later == 2], [TEST, VALID], TRAIN)
    result = np.empty(len(u), np.int8)
    result[order] = np.where(enough, part, TRAIN)[group]
    return result


def _cold(
    rows: Int32[np.ndarray, " I"], fractions: tuple[float, float, float], seed: int
) -> np.ndarray:
    present = np.unique(rows)
    shuffled = np.random.default_rng(seed).permutation(present)
    valid, test = (round(share * len(present)) for share in fractions[1:])
    part = np.zeros(int(present[-1]) + 1 if len(present) else 1, np.int8)
    part[shuffled[:test]] = TEST
    part[shuffled[test : test + valid]] = VALID
    return part[rows]
