"""UMAIR-FPS in two sides: that of the items once for all, that of the people once for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from umair_jax.load_run import LoadedRun
from umair_jax.models import towers
from umair_jax.training.evaluation import Arrays
from umair_jax.training.state import judged
from umair_jax.training.table_optimisers import gather_rows

Columns = Mapping[str, np.ndarray]


class Sides:
    """Scores pairs from what each side gave; see models/towers.py.

    A request then costs one row of the user's tower and, for each drawing, fusion, cross network
    and head, where the whole ranker would encode both again for every pair.
    """

    def __init__(self, run: LoadedRun, columns: Columns, batch: int) -> None:
        """Encodes all items.

        Args:
            run: A run of UMAIR-FPS.
            columns: Of N items, as `ranking.columns_at` gives them; row k is item k + 1.
            batch: Pairs, and items, at a time.
        """
        task, mesh = run.bookmarks.task, run.predictor.mesh
        params, stats = judged(run.state)
        self._context, self._batch, self._columns = run.context, batch, columns

        def inputs(params: Any, context: Any, columns: Any) -> Any:
            rows = task.table_rows(context, columns)
            looked_up = {
                name: gather_rows(params["tables"][name], r, mesh) for name, r in rows.items()
            }
            return task.inputs(looked_up, context, columns)

        first = task.config.user_fields

        @jax.jit
        def item_side(params: Any, stats: Any, context: Any, columns: Any) -> Any:
            found = inputs(params, context, columns)
            wide = None if found.wide is None else found.wide[:, first:]
            model = task.model(params["net"], stats)
            return towers.item_tower(
                model, found.item_embeddings, wide, found.modalities, found.present
            )

        @jax.jit
        def user_side(params: Any, stats: Any, context: Any, columns: Any) -> Any:
            found = inputs(params, context, columns)
            wide = None if found.wide is None else found.wide[:, :first]
            model = task.model(params["net"], stats)
            return towers.user_tower(model, found.user_embeddings, wide, found.user_dense)

        @jax.jit
        def match(params: Any, stats: Any, users: Any, items: Any, who: Any, what: Any) -> Any:
            model = task.model(params["net"], stats)
            found = towers.match(model, _taken(users, who), _taken(items, what))
            return {"probability": jax.nn.sigmoid(found.logit), "weights": found.weights}

        self._user_side = lambda context, columns: user_side(params, stats, context, columns)
        self._match = lambda users, who, what: match(params, stats, users, self._items, who, what)
        parts = []
        count = len(columns["item"])
        for start in range(0, count, batch):
            rows = np.minimum(np.arange(start, start + batch), count - 1)
            part = {name: column[rows] for name, column in columns.items()}
            parts.append(item_side(params, stats, run.context, part))
        self._items = jax.tree.map(lambda *x: jnp.concatenate(x)[:count], *parts)

    def __call__(
        self,
        users: Int[np.ndarray, " P"],
        states: Mapping[str, np.ndarray],
        who: Int[np.ndarray, " B"],
        what: Int[np.ndarray, " B"],
    ) -> Arrays:
        """Scores pairs.

        Args:
            users: Rows of the users, 0 = new.
            states: What is known of each, see FoldIn.states.
            who: Of each pair, which of the users.
            what: Of each pair, the item's position in the columns.

        Returns:
            "probability" [B] and "weights" [B, M].
        """
        columns = {name: np.zeros(len(users), c.dtype) for name, c in self._columns.items()}
        columns |= {"user": users, "state": np.arange(len(users), dtype=np.int32)}
        sides = self._user_side({**self._context, **states}, columns)
        pending = []
        for start in range(0, len(who), self._batch):
            # Whole batches, so that one program serves all.
            rows = np.minimum(np.arange(start, start + self._batch), len(who) - 1)
            pending.append(self._match(sides, who[rows], what[rows]))
        parts = jax.device_get(pending)
        return {name: np.concatenate([p[name] for p in parts])[: len(who)] for name in parts[0]}


def _taken(side: Mapping[str, jax.Array], rows: jax.Array) -> dict[str, jax.Array]:
    return {name: x.at[rows].get(mode="promise_in_bounds") for name, x in side.items()}
