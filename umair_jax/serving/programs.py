"""A trained ranker as functions of named weights and plain arrays by user and by item."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from umair_jax.models import towers
from umair_jax.models.inputs import PRESENT, InputShapes, RankerOutput, assemble
from umair_jax.models.ranker import RankerConfig
from umair_jax.models.tables import lookup
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import stored_rows

SCORER, USER_TOWER, ITEM_TOWER, MATCH = "scorer", "user_tower", "item_tower", "match"
ROWS, TABLES = "_rows", "tables/"
Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Weights:
    """The parameters, statistics and tables of a state, each under one name.

    Attributes:
        arrays: float32 by path, such as "net/user_tower/...", "stats/..." or "tables/embedding".
        tree: How they hang together.
    """

    arrays: dict[str, np.ndarray]
    tree: Any

    @classmethod
    def of(cls, params: Mapping[str, Any], stats: Any) -> Weights:
        """The weights that `state.judged` gives, all in float32."""
        tables = {
            name: stored_rows.opened(jnp.asarray(table)) for name, table in params["tables"].items()
        }
        whole = {**params, "tables": tables, "stats": stats}
        leaves, tree = jax.tree_util.tree_flatten_with_path(whole)
        arrays = {
            "/".join(str(key.key) for key in path): np.asarray(jax.device_get(leaf), np.float32)
            for path, leaf in leaves
        }
        return cls(arrays, tree)

    def nested(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays by name, as `arrays` has them, in the nesting of the state."""
        return jax.tree.unflatten(self.tree, [given[name] for name in self.arrays])


def read(task: BookmarksTask, context: Any, batch: Any) -> tuple[Arrays, Arrays]:
    """What the programs take of a batch.

    Returns:
        By user and by item: "embedding_rows" and "wide_rows" int32 [B, F], as far as the ranker
        has these tables; the vectors of each side float32 [B, D]; for the user "history_<name>"
        float32 [B, L, D], where the ranker reads it; for the item "present" bool [B, M], in the
        order of InputShapes.modality_names.
    """
    users, on_items = task.config.user_fields, {PRESENT, *dict(task.config.modalities)}
    user, item = {}, {}
    for name, rows in task.table_rows(context, batch).items():
        user[name + ROWS], item[name + ROWS] = rows[:, :users], rows[:, users:]
    for name, array in task.arrays(context, batch).items():
        side = item if name in on_items else user
        side[name] = array if array.dtype == bool else array.astype(jnp.float32)
    return user, item


def make(config: InputShapes, weights: Weights) -> dict[str, Callable[..., dict[str, jax.Array]]]:
    """The programs of a ranker.

    Args:
        config: Options of the ranker.
        weights: Its weights; only their nesting is kept.

    Returns:
        "scorer": (weights, user, item) -> "probability" [B] and "weights" [B, M], M being 0 for a
        ranker that gives its modalities none. Of UMAIR-FPS also "user_tower": (weights, user) and
        "item_tower": (weights, item), see models/towers.py, and "match": (weights, what these two
        gave) -> the same as the scorer.
    """
    graph = nnx.split(nnx.eval_shape(lambda: config.create(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)[
        0
    ]

    def model(given: Arrays) -> Any:
        nested = weights.nested(given)
        return nnx.merge(graph, nested["net"], nested["stats"])

    def scorer(given: Arrays, user: Arrays, item: Arrays) -> dict[str, jax.Array]:
        tables = {}
        for name in config.tables:
            rows = jnp.concatenate([user[name + ROWS], item[name + ROWS]], axis=1)
            tables[name] = lookup(given[TABLES + name], rows)
        return _answer(model(given)(assemble(config, tables, {**user, **item})))

    programs: dict[str, Callable[..., dict[str, jax.Array]]] = {SCORER: scorer}
    if not isinstance(config, RankerConfig):
        return programs

    names = {name for name, _ in (*config.user_dense, *config.modalities)}

    def vectors(side: Arrays) -> Arrays:
        return {name: array for name, array in side.items() if name in names}

    def user_tower(given: Arrays, user: Arrays) -> dict[str, jax.Array]:
        return towers.user_tower(model(given), *_looked_up(given, user), vectors(user))

    def item_tower(given: Arrays, item: Arrays) -> dict[str, jax.Array]:
        looked_up = _looked_up(given, item)
        return towers.item_tower(model(given), *looked_up, vectors(item), item[PRESENT])

    def match(given: Arrays, user: Arrays, item: Arrays) -> dict[str, jax.Array]:
        return _answer(towers.match(model(given), user, item))

    return {**programs, USER_TOWER: user_tower, ITEM_TOWER: item_tower, MATCH: match}


def _looked_up(given: Arrays, side: Arrays) -> tuple[jax.Array, jax.Array | None]:
    """Embeddings [B, F, D] and linear weights [B, F] of a user's or an item's sparse fields."""
    embeddings = lookup(given[TABLES + "embedding"], side["embedding" + ROWS])
    if TABLES + "wide" not in given:
        return embeddings, None
    return embeddings, lookup(given[TABLES + "wide"], side["wide" + ROWS])[..., 0]


def _answer(output: RankerOutput) -> dict[str, jax.Array]:
    return {"probability": jax.nn.sigmoid(output.logit), "weights": output.weights}
