"""A data set and its feature bank as what the ranker trains on: columns of ids, arrays to look up.

    columns   one entry an interaction, a few bytes each: user, item, state, label, counts so far.
              They are what a batch carries.
    context   arrays that stay on the devices: table rows and vectors by item, user and state. A
              *state* is what is known of a user between two of his bookmarks (data/interests.py).

Vectors, means of vectors, interest tags and counts of an interaction come from strictly before its
second; true probabilities and mixtures of simulated data are in neither.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import xxhash
from jaxtyping import Int8, Int32

from umair_jax.data import splits
from umair_jax.data.dataset import Dataset
from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.fields import Field, Side
from umair_jax.data.interests import Histories, latest_bookmarks, popularity_as_of
from umair_jax.data.ranking_config import DEVICE, HISTORY, VECTORS, RankingConfig
from umair_jax.data.ranking_vectors import dense_arrays, with_widths
from umair_jax.data.schema import Schema
from umair_jax.data.state_rows import StateRows
from umair_jax.data.stored_vectors import SCALE, mapped

COUNTED = ("total_view", "total_bookmarks", "bookmark_rate")


@dataclasses.dataclass(frozen=True)
class RankingData:
    """Interactions ready for the ranker.

    Attributes:
        schema: The fields, dense ones with the widths of the bank.
        split: Split of every interaction, see data/splits.py.
        columns: By interaction: "user", "item", "state" int32; "label" int8; and, by field name,
            the index of every counted bucket field, -1 = unknown.
        context: "item_rows" [N+1, 2*Fi], "user_rows" [U+1, 2*Fu], "state_rows" [S, 2*Fs] int32:
            rows of the embedding table, then of the wide weights (0 in the places of counted
            fields); "present" bool [N+1, 3] for VECTORS; one array [N+1, D] or [S, D] for every
            dense field, by its column, and with int8 its "<column>_scale" float32 [N+1] or [S];
            where asked for, "history" int32 [S, L]: item rows of the
            latest bookmarks, the latest first, 0 = none.
        lookups: With vectors_on = "host", what the context lacks: (array, "item" or "state", the
            column whose entries are its rows) for every dense field, and its scale, by name.
    """

    schema: Schema
    split: Int8[np.ndarray, " I"]
    columns: dict[str, np.ndarray]
    context: dict[str, np.ndarray]
    lookups: dict[str, tuple[np.ndarray, str]] = dataclasses.field(default_factory=dict)

    def rows(self, part: str) -> np.ndarray:
        """Positions of the interactions of "train", "valid" or "test", ascending."""
        number = {name: key for key, name in splits.NAMES.items()}[part]
        return np.flatnonzero(self.split == number)


def counted(schema: Schema) -> tuple[Field, ...]:
    """The fields whose value is a count as of the interaction."""
    return tuple(field for field in schema.sparse(Side.ITEM) if field.column in COUNTED)


def build(
    dataset: Dataset,
    bank: FeatureBank,
    schema: Schema,
    config: RankingConfig,
    folder: Path | None = None,
) -> RankingData:
    """Joins a data set with its vectors.

    Args:
        dataset: Items, users, log.
        bank: The items' vectors, in the same order.
        schema: The fields; the widths of dense ones are replaced by the bank's.
        config: Splits and windows.
        folder: Where to keep the files of vectors_on = "host".

    Raises:
        ValueError: The bank has another number of items, a field has no source, a split would
            be empty, or there is no folder for the files.
    """
    if bank.items != len(dataset.items):
        raise ValueError(
            f"feature bank: got {bank.items} items, expected the data set's "
            f"{len(dataset.items)}; extract again"
        )
    log = dataset.interactions
    split = splits.split(dataset, config.split, config.fractions, config.split_seed)
    histories = config.histories(log, split)
    schema = with_widths(schema, bank)
    columns = {
        "user": log.user,
        "item": log.item,
        "state": histories.state,
        "label": log.label,
        **_counts(dataset, split, schema, config),
    }
    if config.vectors_on == DEVICE:
        known = context(dataset, bank, schema, config, histories)
        return RankingData(schema, split, columns, known)
    if folder is None:
        raise ValueError("vectors_on: got 'host' and no folder; expected one for its files")
    # All that the vectors depend on, besides the bank that the folder belongs to.
    key = xxhash.xxh3_64_hexdigest(repr((dataset.fingerprint, schema.dense(), config)).encode())
    vectors = mapped(
        folder / f"mapped-{key}",
        (pair for each in dense_arrays(schema, bank, config, histories) for pair in each.items()),
    )
    sides = {field.column: field.side for field in schema.dense()}
    lookups = {
        name: (array, "state" if sides[name.removesuffix(SCALE)] is Side.USER else "item")
        for name, array in vectors.items()
    }
    known = _indices(dataset, bank, schema, config, histories)
    return RankingData(schema, split, columns, known, lookups)


def context(
    dataset: Dataset,
    bank: FeatureBank,
    schema: Schema,
    config: RankingConfig,
    histories: Histories,
) -> dict[str, np.ndarray]:
    """The arrays of RankingData.context with all vectors, for the states of these histories."""
    found = _indices(dataset, bank, schema, config, histories)
    for vectors in dense_arrays(schema, bank, config, histories):
        found |= vectors
    return found


def _indices(
    dataset: Dataset,
    bank: FeatureBank,
    schema: Schema,
    config: RankingConfig,
    histories: Histories,
) -> dict[str, np.ndarray]:
    """The context short of its vectors."""
    found = {
        "item_rows": _item_rows(dataset, schema),
        "user_rows": np.concatenate(schema.user_rows(dataset.users), axis=1),
        "state_rows": StateRows(dataset, schema)(histories),
        "present": np.stack([bank.present(name) for name in VECTORS], axis=1),
    }
    if config.history:
        found[HISTORY] = latest_bookmarks(histories, config.history)
    return found


def columns_at(
    dataset: Dataset,
    data: RankingData,
    config: RankingConfig,
    *,
    user: int | Int32[np.ndarray, " K"],
    state: int | Int32[np.ndarray, " K"],
    item: Int32[np.ndarray, " K"],
    moment: int,
) -> dict[str, np.ndarray]:
    """Columns as if items were shown at one moment, whether it happened or not.

    Args:
        dataset: What `data` was built of.
        data: Interactions ready for the ranker.
        config: What `data` was built with.
        user: Row of the user, of one for all items or of one for each.
        state: What is known of the user at the moment: a value of the column "state".
        item: Rows of the items.
        moment: Unix seconds; counts of the items come from strictly before it.

    Returns:
        Columns of K entries like those of `data`, of the same types, with label 0.
    """
    log, asked = dataset.interactions, len(item)
    extended = log.with_questions(user, item, moment)
    split = np.append(data.split, np.full(asked, splits.TEST, np.int8))
    counts = _counts(
        dataclasses.replace(dataset, interactions=extended), split, data.schema, config
    )
    return {
        "user": extended.user[len(log) :],
        "item": extended.item[len(log) :],
        "state": np.full(asked, state, np.int32),
        "label": extended.label[len(log) :],
        **{name: column[len(log) :] for name, column in counts.items()},
    }


def _counts(
    dataset: Dataset, split: np.ndarray, schema: Schema, config: RankingConfig
) -> dict[str, np.ndarray]:
    """Indices of the counted fields, as small integers."""
    items = dataset.items
    base = items.total_view, items.total_bookmarks
    views, bookmarks = popularity_as_of(dataset.interactions, base, split, config.split)
    numbers = {
        "total_view": views,
        "total_bookmarks": bookmarks,
        # One bookmark in four views stands in for what is not known yet.
        "bookmark_rate": (bookmarks + 1.0) / (views + 4.0),
    }
    columns = {}
    for field in counted(schema):
        local = schema.encode(field.name, numbers[field.column])
        columns[field.name] = local.astype(np.min_scalar_type(-field.size))
    return columns


def _item_rows(dataset: Dataset, schema: Schema) -> np.ndarray:
    """Rows of all sparse item fields, zeros for counted ones."""
    fields = schema.sparse(Side.ITEM)
    static = [field.name for field in fields if field.column not in COUNTED]
    rows = np.zeros((2, len(dataset.items) + 1, len(fields)), np.int32)
    places = [k for k, field in enumerate(fields) if field.name in static]
    rows[..., places] = schema.item_rows(dataset.items, static)
    return np.concatenate(rows, axis=1)
