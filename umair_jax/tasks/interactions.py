"""What all tasks over the log of interactions have in common: look-ups of rows and vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from umair_jax.data import ranking
from umair_jax.data.fields import LONG_TAGS, SHORT_TAGS, Side
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import HISTORY, VECTORS
from umair_jax.data.schema import Schema
from umair_jax.data.stored_vectors import SCALE
from umair_jax.models.inputs import HISTORY_OF, PRESENT, InputShapes, RankerInputs, assemble
from umair_jax.models.ranker import META
from umair_jax.models.tables import TableSpec, init_table


def shape_of(schema: Schema) -> dict[str, Any]:
    """The fields of InputShapes that follow from a schema."""
    return {
        "user_fields": len(schema.sparse(Side.USER)),
        "item_fields": len(schema.sparse(Side.ITEM)),
        "embedding_width": schema.embedding_width,
        "user_dense": tuple((f.column, f.width) for f in schema.dense(Side.USER)),
        "modalities": tuple((f.column, f.width) for f in schema.dense(Side.ITEM)),
    }


def table_specs(schema: Schema) -> dict[str, TableSpec]:
    """The stacked embedding table and the linear weights of the wide part."""
    layout, sizes = schema.embedding_layout(), {f.table: f.size for f in schema.sparse()}
    blocks = tuple((start, sizes[table]) for table, start in layout.offsets.items())
    width = schema.embedding_width
    return {
        "embedding": TableSpec("embedding", layout.used, width, blocks),
        "wide": TableSpec("wide", schema.wide_layout().used, 1, init="zeros"),
    }


class InteractionsTask:
    """A model over a schema: its parameters, its arrays on the devices, and a batch's inputs.

    The batch carries "user", "item", "state" int32 [B], "weight" float32 [B] and the index of every
    counted field; all else is looked up in the context, or comes with the batch where vectors are
    not on the devices. Tasks add a loss and predictions.
    """

    def __init__(self, data: RankingData, config: InputShapes) -> None:
        """Prepares the shapes; creates no array.

        Args:
            data: Schema and context.
            config: Options of the model, for that schema, see shape_of.

        Raises:
            ValueError: The model was configured for another schema, or reads bookmarked items
                that the context does not have.
        """
        self.schema, self.config, self._context = data.schema, config, data.context
        expected = shape_of(data.schema)
        wrong = [name for name, value in expected.items() if getattr(config, name) != value]
        if wrong:
            raise ValueError(
                f"ranker {', '.join(wrong)}: got {[getattr(config, name) for name in wrong]}, "
                f"expected the schema's {[expected[name] for name in wrong]}"
            )
        if config.reads_history and HISTORY not in data.context:
            raise ValueError(
                "features history: got 0, expected 1 or more: this ranker reads the items that a "
                "user bookmarked"
            )
        specs = table_specs(data.schema)
        self._specs = {name: specs[name] for name in config.tables}
        model = nnx.eval_shape(lambda: config.create(nnx.Rngs(0)))
        self._graph = nnx.split(model, nnx.Param, nnx.BatchStat)[0]
        items, users = data.schema.sparse(Side.ITEM), data.schema.sparse(Side.USER)
        self._counted = [
            (field.name, items.index(field), *self._offsets(field.name))
            for field in ranking.counted(data.schema)
        ]
        # The context has the users' own fields first, then their interest tags.
        stored = sorted(range(len(users)), key=lambda k: users[k].column in (LONG_TAGS, SHORT_TAGS))
        self._user_order = np.argsort(stored)
        self._modalities = [f.column for f in data.schema.dense(Side.ITEM)]
        self._masked = ""  # a modality that counts as missing for every item

    def _offsets(self, name: str) -> tuple[int, int]:
        table = self.schema.field(name).table
        return (
            self.schema.embedding_layout().offsets[table],
            self.schema.wide_layout().offsets[name],
        )

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Parameters of the network and the tables, and BatchNorm statistics."""
        net_key, *table_keys = jax.random.split(key, 1 + len(self._specs))
        model = self.config.create(nnx.Rngs(params=net_key))
        _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        tables = {
            name: init_table(spec, k)
            for (name, spec), k in zip(self._specs.items(), table_keys, strict=True)
        }
        params = {"net": nnx.to_pure_dict(params), "tables": tables}
        return {"params": params, "stats": nnx.to_pure_dict(stats)}

    def context(self) -> Mapping[str, np.ndarray]:
        """The arrays of RankingData.context."""
        return self._context

    def table_rows(self, context: Any, batch: Any) -> dict[str, jax.Array]:
        """Rows of every sparse value, users' fields first: "embedding" and "wide" int32 [B, F]."""
        user = context["user_rows"].at[batch["user"]].get(mode="promise_in_bounds")
        state = context["state_rows"].at[batch["state"]].get(mode="promise_in_bounds")
        item = context["item_rows"].at[batch["item"]].get(mode="promise_in_bounds")
        rows = {}
        for side, name in enumerate(("embedding", "wide")):
            if name not in self._specs:
                continue
            mine = [_half(user, side), _half(state, side)]
            users = jnp.concatenate(mine, axis=1)
            if (np.diff(self._user_order) != 1).any():
                users = users[:, self._user_order]
            items = _half(item, side)
            for field, place, *offsets in self._counted:
                local = batch[field].astype(jnp.int32)
                items = items.at[:, place].set(jnp.where(local < 0, 0, local + offsets[side]))
            rows[name] = jnp.concatenate([users, items], axis=1)
        return rows

    def arrays(self, context: Any, batch: Any) -> dict[str, jax.Array]:
        """All that the model reads of a batch besides table rows, see `inputs.assemble`."""
        item, state = batch["item"], batch["state"]

        def gather(name: str, index: jax.Array) -> jax.Array:
            return context[name].at[index].get(mode="promise_in_bounds")

        def looked_up(name: str, index: jax.Array) -> jax.Array:
            # Vectors that are not on the devices come with the batch.
            return batch[name] if name in batch else gather(name, index)

        def vector(name: str, index: jax.Array) -> jax.Array:
            found, scale = looked_up(name, index), name + SCALE
            scaled = scale in context or scale in batch
            return found * looked_up(scale, index)[..., None] if scaled else found

        found = {name: vector(name, state) for name, _ in self.config.user_dense}
        found |= {name: vector(name, item) for name in self._modalities}
        if self.config.modality_names:
            known = gather("present", item)
            there = {name: known[:, k] for k, name in enumerate(VECTORS)}
            there[META] = jnp.ones_like(known[:, 0])
            there[self._masked] = jnp.zeros_like(known[:, 0])
            present = [there[name] for name in self.config.modality_names]
            found[PRESENT] = jnp.stack(present, axis=1)
        if self.config.reads_history:
            bookmarked = gather(HISTORY, state)
            found |= {HISTORY_OF + name: vector(name, bookmarked) for name in self._modalities}
        return found

    def inputs(self, rows: Any, context: Any, batch: Any) -> RankerInputs:
        """What the model reads of a batch.

        Args:
            rows: {"embedding": [B, F, D], "wide": [B, F, 1]}, looked up for `table_rows`.
            context: The arrays of `context`, on the devices.
            batch: The columns, B entries each.
        """
        return assemble(self.config, rows, self.arrays(context, batch))

    def model(self, net: Any, stats: Any) -> Any:
        """The model with these parameters and statistics."""
        return nnx.merge(self._graph, net, stats)


def _half(rows: jax.Array, side: int) -> jax.Array:
    """The embedding rows or the wide rows of an array that holds both."""
    width = rows.shape[1] // 2
    return rows[:, side * width : (side + 1) * width]
