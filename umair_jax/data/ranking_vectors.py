"""Vectors of items and of what users bookmarked, as the ranker looks them up.

Content, style and text of the feature bank, standardised over the catalogue, and their means over
the windows of each state.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, Float64

from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.fields import Field, Side
from umair_jax.data.interests import Histories, interest_vectors
from umair_jax.data.ranking_config import VECTORS, WINDOWS, RankingConfig
from umair_jax.data.schema import Schema
from umair_jax.data.standardise import log_gram, moments
from umair_jax.data.stored_vectors import stored


def scales(
    bank: FeatureBank, config: RankingConfig
) -> dict[str, tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]]:
    """Mean and deviation that standardise each of VECTORS; those without are left as they are."""
    found = {}
    for name in VECTORS:
        present = bank.present(name)
        if config.standardise and name not in config.zero and present.any():
            found[name] = moments(_raw(bank, name, config)[present])
    return found


def _raw(bank: FeatureBank, name: str, config: RankingConfig) -> Float32[np.ndarray, "N1 _"]:
    array = getattr(bank, name)
    if name == "style" and config.log_style:
        array = np.where(bank.present(name)[:, None], log_gram(array), 0)
    return array


def vector_source(field: Field) -> tuple[str, str]:
    """Window ("" for items) and vector of a dense field.

    Raises:
        ValueError: Its column names neither.
    """
    window = next((w for w in WINDOWS if field.column.startswith(w)), "")
    vector = field.column.removeprefix(window)
    if vector not in VECTORS or (window == "") != (field.side is Side.ITEM):
        raise ValueError(
            f"field {field.name!r}: got the column {field.column!r}; expected "
            f"{', '.join(VECTORS)} for an item, with {' or '.join(WINDOWS)} before it for a user"
        )
    return window, vector


def with_widths(schema: Schema, bank: FeatureBank) -> Schema:
    """The schema with the bank's widths for its dense fields."""
    widths = {
        field.name: {"width": getattr(bank, vector_source(field)[1]).shape[1]}
        for field in schema.dense()
    }
    return schema.replace(**widths)


def dense_arrays(
    schema: Schema, bank: FeatureBank, config: RankingConfig, histories: Histories
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays of the dense fields as they are stored, those of one kind of vector at a time."""
    known = scales(bank, config)
    sources = {field.column: vector_source(field) for field in schema.dense()}
    for kind in VECTORS:
        windows = {column: window for column, (window, name) in sources.items() if name == kind}
        if not windows:
            continue
        array, present = _raw(bank, kind, config), bank.present(kind)
        if kind in config.zero:
            array = np.zeros_like(array)
        elif kind in known:
            mean, deviation = known[kind]
            array = np.where(present[:, None], (array - mean) / deviation, 0)
        array = array.astype(np.float32)
        found = {"": array}
        if any(windows.values()):
            both = interest_vectors(histories, array, present)
            found |= dict(zip(WINDOWS, both, strict=True))
        columns = {column: found[window] for column, window in windows.items()}
        yield stored(columns, config.vector_dtype)
