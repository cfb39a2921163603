"""What the programs take of every user and of every item, to be looked up by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from umair_jax.data.dataset import Dataset
from umair_jax.data.ranking import RankingData
from umair_jax.models.inputs import InputShapes
from umair_jax.serving import programs
from umair_jax.tasks.bookmarks import BookmarksTask

_ROWS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class Side:
    """All users, or all items.

    Attributes:
        ids: The source's ids by row; row 0 is whoever or whatever is unknown, without an id.
        arrays: By name, a row each, see `programs.read`.
    """

    ids: Sequence[str]
    arrays: dict[str, np.ndarray]


def both(dataset: Dataset, latest: RankingData, config: InputShapes) -> tuple[Side, Side]:
    """Users and items as they are after the log.

    Args:
        dataset: Items, users, log.
        latest: What `snapshot.latest` made of them.
        config: Options of the ranker.
    """
    task = BookmarksTask(latest, config)
    context = {name: jnp.asarray(array) for name, array in task.context().items()}
    user_ids, item_ids = dataset.users.user_id, dataset.items.illust_id
    return (
        Side(user_ids, _arrays(task, latest, context, 0, len(user_ids))),
        Side(item_ids, _arrays(task, latest, context, 1, len(item_ids))),
    )


def _arrays(
    task: BookmarksTask, latest: RankingData, context: dict[str, jax.Array], side: int, rows: int
) -> dict[str, np.ndarray]:
    read = jax.jit(lambda context, batch: programs.read(task, context, batch)[side])
    parts = []
    for start in range(0, rows, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, rows)
        batch = {name: column[start:stop] for name, column in latest.columns.items()}
        parts.append(jax.device_get(read(context, batch)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
