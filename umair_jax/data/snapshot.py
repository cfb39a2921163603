"""Users and items as they are once the log has ended: what a site asks about next."""

from __future__ import annotations

import numpy as np

from umair_jax.data import ranking, splits
from umair_jax.data.dataset import Dataset
from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import RankingConfig


def moment_after(dataset: Dataset) -> int:
    """The first second, unix, at which the whole log is the past."""
    return int(dataset.interactions.timestamp.max()) + 1


def latest(
    dataset: Dataset, bank: FeatureBank, data: RankingData, config: RankingConfig
) -> RankingData:
    """All users and items at the moment after the log.

    Args:
        dataset: Items, users, log.
        bank: The items' vectors.
        data: What `ranking.build` made of them.
        config: What it was built with; what it hides from held-out rows stays hidden.

    Returns:
        Row k of its columns asks about user k and item k, or 0 past the last of either; state k
        of its context is what is known of user k.
    """
    log, moment = dataset.interactions, moment_after(dataset)
    users = np.arange(len(dataset.users) + 1, dtype=np.int32)
    asked = log.with_questions(users, np.zeros_like(users), moment)
    held_out = np.full(len(users), splits.TEST, np.int8)
    histories = config.histories(asked, np.append(data.split, held_out))
    histories = histories.at(histories.state[len(log) :])
    rows = np.arange(max(len(dataset.users), len(dataset.items)) + 1, dtype=np.int32)
    user = np.where(rows <= len(dataset.users), rows, 0)
    item = np.where(rows <= len(dataset.items), rows, 0)
    columns = ranking.columns_at(
        dataset, data, config, user=user, state=user, item=item, moment=moment
    )
    return RankingData(
        data.schema,
        np.full(len(rows), splits.TEST, np.int8),
        columns,
        ranking.context(dataset, bank, data.schema, config, histories),
    )
