"""How many values of a data set fall on the same row of a hash table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from umair_jax.data import hashing
from umair_jax.data.schema import LONG_TAGS, SHORT_TAGS, Kind, Schema, Side


@dataclasses.dataclass(frozen=True)
class Collisions:
    """The load of one hash table.

    Attributes:
        table: Name of the embedding table.
        fields: The fields that share it.
        size: Rows of the table.
        distinct: Distinct values in the data.
        rows_used: Rows that at least one value falls on.
        colliding: Values that share their row with another value.
        expected: What an ideal hash would give for `colliding`, on average.
    """

    table: str
    fields: tuple[str, ...]
    size: int
    distinct: int
    rows_used: int
    colliding: int
    expected: float

    @property
    def share(self) -> float:
        """Share of the distinct values that share their row."""
        return self.colliding / self.distinct if self.distinct else 0.0


def collisions(schema: Schema, items: Any, users: Any) -> tuple[Collisions, ...]:
    """Counts the collisions of every hash table of a schema on a data set.

    Args:
        schema: The fields.
        items: The data set's items (row 0 is a placeholder, as everywhere).
        users: The data set's users.

    Returns:
        One entry per hash table, in the schema's order. The table of the users' interest tags is
        judged on all tags of all items, since each may become somebody's interest.
    """
    values: dict[str, set[str]] = {}
    fields: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for field in schema.sparse():
        if field.kind is not Kind.HASH:
            continue
        texts: Iterable[Any] = ()
        if field.column in (LONG_TAGS, SHORT_TAGS):
            texts = (tag for tags in items.tags[1:] for tag in tags)
        elif field.static:
            texts = schema.values(field.name, items if field.side is Side.ITEM else users)[1:]
        values.setdefault(field.table, set()).update(str(text) for text in texts if text != "")
        fields.setdefault(field.table, []).append(field.name)
        sizes[field.table] = field.size
    return tuple(
        _count(table, tuple(fields[table]), sizes[table], texts) for table, texts in values.items()
    )


def _count(table: str, fields: tuple[str, ...], size: int, texts: set[str]) -> Collisions:
    load = np.unique(hashing.buckets(texts, size), return_counts=True)[1]
    n = len(texts)
    alone = math.exp((n - 1) * math.log1p(-1 / size)) if size > 1 and n else float(n <= 1)
    return Collisions(
        table, fields, size, n, len(load), int(load[load > 1].sum()), n * (1.0 - alone)
    )


def summary(schema: Schema, items: Any, users: Any) -> dict[str, dict[str, Any]]:
    """The part of summary.json about hash tables: name of the table -> see Collisions, as JSON."""
    return {
        entry.table: {
            "fields": list(entry.fields),
            "rows": entry.size,
            "distinct": entry.distinct,
            "colliding": entry.colliding,
            "expected": entry.expected,
        }
        for entry in collisions(schema, items, users)
    }


def show(tables: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Prints what `summary` gave."""
    table = Table(title="Hash tables", title_justify="left")
    table.add_column("table")
    for header in ("fields", "rows", "values", "share a row", "", "ideal"):
        table.add_column(header, justify="right")
    for name, entry in tables.items():
        distinct = entry["distinct"]
        table.add_row(
            name, f"{len(entry['fields']):,}", f"{entry['rows']:,}", f"{distinct:,}",
            f"{entry['colliding']:,}", f"{entry['colliding'] / max(distinct, 1):.1%}",
            f"{entry['expected']:,.1f}",
        )  # fmt: skip
    console.print(table)
    console.print("ideal: how many of the values an ideal hash would have share a row.")
