"""Made-up data of the ranker in the paper's shapes: random vectors, ids that follow Zipf's law."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from umair_jax.data.fields import Field, Side
from umair_jax.data.ranking import RankingData, counted
from umair_jax.data.schema import Schema

_EXPONENT = 1.05


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is made up.

    Attributes:
        interactions: Examples.
        items: Drawings, with vectors.
        users: Users.
        states: What is known of users at different times, with vectors.
        illust_ids: Rows of the table of drawings.
        user_ids: Rows of the table of users.
        vector_share: Widths of the vectors, as a share of the paper's.
    """

    interactions: int = 500_000
    items: int = 100_000
    users: int = 20_000
    states: int = 50_000
    illust_ids: int = 1_000_000
    user_ids: int = 100_000
    vector_share: float = 1.0


def ranking_data(sizes: Sizes, seed: int = 0) -> RankingData:
    """Interactions and context of the paper's schema; all of them are training examples."""
    schema = Schema.paper()
    widths = {f.name: {"width": int(f.width * sizes.vector_share)} for f in schema.dense()}
    tables = {"illust_id": {"size": sizes.illust_ids}, "user_id": {"size": sizes.user_ids}}
    schema = schema.replace(**widths, **tables)
    rng = np.random.default_rng(seed)
    users = schema.sparse(Side.USER)
    columns = {
        # Row 0 of items and users is a placeholder.
        "user": 1 + zipf(rng, sizes.users, sizes.interactions),
        "item": 1 + zipf(rng, sizes.items, sizes.interactions),
        "state": rng.integers(0, sizes.states, sizes.interactions, dtype=np.int32),
        "label": (rng.random(sizes.interactions) < 0.3).astype(np.int8),
    }
    for field in counted(schema):
        columns[field.name] = rng.integers(0, field.size, sizes.interactions, dtype=np.int8)
    context = {
        "item_rows": _rows(schema, schema.sparse(Side.ITEM), sizes.items + 1, rng),
        "user_rows": _rows(schema, [f for f in users if f.static], sizes.users + 1, rng),
        "state_rows": _rows(schema, [f for f in users if not f.static], sizes.states, rng),
        "present": np.ones((sizes.items + 1, 3), bool),
    }
    for field in schema.dense():
        rows = sizes.states if field.side is Side.USER else sizes.items + 1
        context[field.column] = rng.standard_normal((rows, field.width), dtype=np.float32)
    return RankingData(schema, np.zeros(sizes.interactions, np.int8), columns, context)


def zipf(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """Draws int32 [count] from 0 .. size-1, shuffled so that the frequent ones lie anywhere."""
    weights = np.arange(1.0, size + 1) ** -_EXPONENT
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(count))
    return rng.permutation(size)[np.minimum(ranks, size - 1)].astype(np.int32)


def _rows(
    schema: Schema, fields: Sequence[Field], count: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows of the embedding table, then of the wide weights, 0 in the places of counted fields."""
    embedding, wide = [], []
    for field in fields:
        if field in counted(schema):
            local = np.full(count, -1)
        elif field.size >= count:
            local = rng.integers(0, field.size, count)  # ids, hashed
        else:
            local = zipf(rng, field.size, count)
        embedding.append(schema.embedding_rows(field.name, local))
        wide.append(schema.wide_rows(field.name, local))
    return np.stack(embedding + wide, axis=1)
