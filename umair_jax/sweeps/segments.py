"""Users by how much they bookmarked before and by what they go, and AUC within each segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from umair_jax.data.dataset import Dataset
from umair_jax.sweeps.runs import Run
from umair_jax.training import metrics

TASTES = ("goes by content", "goes by style", "goes by artist", "goes by popularity")
ACTIVITY = ("least active third", "middle third", "most active third")


def activity(dataset: Dataset, known: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Third of the users, 0 to 2, of each example, by their bookmarks among known rows.

    Args:
        dataset: The log.
        known: Rows of the log that count, such as the training examples.
        user: User row of each example.
    """
    log = dataset.interactions
    marks = log.user[known][log.label[known] == 1]
    count = np.bincount(marks, minlength=len(dataset.users) + 1)
    present = np.unique(user)
    # By rank, so that thirds are thirds whatever the ties; equal counts in the order of the rows.
    rank = np.empty(len(count), np.int64)
    rank[present[np.argsort(count[present], kind="stable")]] = np.arange(len(present))
    return rank[user] * len(ACTIVITY) // len(present)


def taste(dataset: Dataset, user: np.ndarray) -> np.ndarray | None:
    """What weighs most for the user of each example, 0 to 3 in the order of TASTES.

    None where users are not simulated.
    """
    mixture = dataset.users.true_mixture
    return None if mixture is None else mixture[user].argmax(axis=1)


def auc_by_segment(
    segment: np.ndarray, names: Sequence[str], runs: Mapping[str, Sequence[Run]]
) -> dict[str, dict[str, float]]:
    """Segment -> row -> AUC within it, mean over the row's seeds."""
    places = {name: segment == k for k, name in enumerate(names) if (segment == k).any()}
    found: dict[str, dict[str, float]] = {name: {} for name in places}
    for row, mine in runs.items():
        each = [run.predictions() for run in mine]
        for name, here in places.items():
            values = [metrics.auc(p["label"][here], p["probability"][here]) for p in each]
            found[name][row] = float(np.mean(values))
    return found
