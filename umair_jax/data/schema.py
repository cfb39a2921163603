"""What the ranker knows about an item and a user: fields, their kinds, and their table rows.

A value becomes a *local index* inside its own table (`Schema.encode`, -1 = unknown) and then a row
of one stacked table: `embedding_layout` puts the shared tables one after the other, `wide_layout`
puts one block per field, since the linear part shares nothing between positions. Row 0 of both
is the unknown value: missing, out of range, or padding.

| kind | values | local index |
|---|---|---|
| category | integers 0 .. size-1 | the value itself |
| bucket | numbers >= 0 | how many boundaries are <= the value |
| hash | text or ids | XXH3-64 of the text, modulo size |
| dense | a vector | none: it goes into the network as it is |
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from umair_jax.data import hashing
from umair_jax.data.fields import LONG_TAGS, SHORT_TAGS, Field, Kind, Side

__all__ = ["LONG_TAGS", "SHORT_TAGS", "Field", "Kind", "Layout", "Schema", "Side"]

VERSION = 1
ROW_MULTIPLE = 1024
INTEREST_TAGS = 4  # per window


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every block of a stacked table starts.

    Attributes:
        offsets: First row of each block: by table name for embeddings, by field name for the
            wide part. The first block starts at 1, after the unknown row.
        rows: Rows to allocate, a multiple of 1,024.
        used: Rows in use, the unknown row counted.
    """

    offsets: dict[str, int]
    rows: int
    used: int


@dataclasses.dataclass(frozen=True)
class Schema:
    """The fields of the ranker, in order, and the width of their embeddings.

    Attributes:
        fields: Items' fields and users' fields, each in the order of the network's inputs.
        embedding_width: Width of every sparse embedding.
    """

    fields: tuple[Field, ...]
    embedding_width: int = 8

    def __post_init__(self):
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"got the field names {twice} twice; expected each once; rename one")
        if self.embedding_width < 1:
            raise ValueError(f"got embedding_width {self.embedding_width}; expected 1 or more")
        tables: dict[str, Field] = {}
        for field in self.sparse():
            first = tables.setdefault(field.table, field)
            if (first.size, first.kind) != (field.size, field.kind):
                raise ValueError(
                    f"fields {first.name!r} and {field.name!r} share the table {field.table!r}: "
                    f"got sizes {first.size} and {field.size}, kinds {first.kind.value} and "
                    f"{field.kind.value}; expected equal ones; give one of them another table"
                )

    @classmethod
    def paper(cls) -> Schema:
        """The inputs of UMAIR-FPS.

        Source: the authors' feature configuration: names, sizes, boundaries, order and shared
        tables as there. We differ in the hash, and in one unknown row for missing values.
        """
        edges = (400, 800, 1600)
        item, user = Side.ITEM, Side.USER

        def category(name: str, size: int) -> Field:
            return Field(name, Kind.CATEGORY, item, size=size, column=name)

        def bucket(name: str, *boundaries: int | float) -> Field:
            return Field(name, Kind.BUCKET, item, boundaries=boundaries, column=name)

        def tag(name: str, side: Side, column: str, position: int) -> Field:
            table = f"{side.value}_tag"
            return Field(name, Kind.HASH, side, table, 8_000, column=column, position=position)

        def vector(name: str, side: Side, column: str, width: int) -> Field:
            return Field(name, Kind.DENSE, side, width=width, column=column)

        def interest(window: str, column: str) -> list[Field]:
            return [
                tag(f"{window}_term_interest_tag_{k}", user, column, k)
                for k in range(INTEREST_TAGS)
            ]

        views = (100, 250, 500, 1000, 5000, 10000, 40000, 60000, 100000)
        bookmarks = (100, 250, 500, 1000, 1500, 2000, 3000, 6000, 10000)
        return cls(
            (
                category("restrict", 3),
                category("sanity_level", 10),
                category("x_restrict", 3),
                *(tag(f"tag_{k}", item, "tags", k) for k in range(4)),
                bucket("total_bookmarks", *bookmarks),
                bucket("total_view", *views),
                bucket("width", *edges),
                bucket("height", *edges),
                Field("illust_id", Kind.HASH, item, size=1_000_000, column="illust_id"),
                Field("artist_id", Kind.HASH, item, size=10_000, column="artist"),
                vector("img_semantics", item, "content", 1024),
                vector("img_styles", item, "style", 256),
                vector("tag_semantics", item, "text", 512),
                Field("user_id", Kind.HASH, user, size=100_000, column="user_id"),
                Field("username", Kind.HASH, user, size=1_000, column="username"),
                *interest("long", LONG_TAGS),
                *interest("short", SHORT_TAGS),
                vector("long_term_interest_tags_feature", user, "long_term_text", 512),
                vector("short_term_interest_tags_feature", user, "short_term_text", 512),
            )
        )

    # Looking at the fields -------------------------------------------------------------------

    def sparse(self, side: Side | None = None) -> tuple[Field, ...]:
        """The fields that have table rows, in order; of one side, or of both."""
        return tuple(f for f in self._side(side) if f.kind is not Kind.DENSE)

    def dense(self, side: Side | None = None) -> tuple[Field, ...]:
        """The fields that are vectors, in order; of one side, or of both."""
        return tuple(f for f in self._side(side) if f.kind is Kind.DENSE)

    def _side(self, side: Side | None) -> Iterator[Field]:
        return (f for f in self.fields if side is None or f.side is side)

    def field(self, name: str) -> Field:
        """One field by name.

        Raises:
            ValueError: There is none; the nearest name is suggested.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise ValueError(_unknown_name(name, [f.name for f in self.fields]))

    # Changing the fields ---------------------------------------------------------------------

    def replace(self, **changes: Mapping[str, Any]) -> Schema:
        """A schema with some fields changed.

        Args:
            **changes: Field name = what to change of it, e.g. illust_id=dict(size=4096). A size
                given for one field of a shared table holds for all fields of that table; the name
                of a shared table may be used as well.

        Raises:
            ValueError: No field or table has that name, or the result is not consistent.
        """
        tables = {f.table for f in self.sparse()}
        fields = list(self.fields)
        for name, change in changes.items():
            by_table = name in tables and all(f.name != name for f in fields)
            table = name if by_table else self.field(name).table
            for k, field in enumerate(fields):
                mine = field.name == name or (by_table and field.table == table)
                if mine:
                    # A bucket's size follows from its boundaries, unless it is given.
                    reset = {"size": 0} if "boundaries" in change else {}
                    fields[k] = dataclasses.replace(field, **{**reset, **change})
                elif "size" in change and table and field.table == table:
                    fields[k] = dataclasses.replace(field, size=change["size"])
        return dataclasses.replace(self, fields=tuple(fields))

    def without(self, *names: str) -> Schema:
        """A schema without these fields."""
        drop = {self.field(name).name for name in names}
        return dataclasses.replace(self, fields=tuple(f for f in self.fields if f.name not in drop))

    def add(self, *fields: Field) -> Schema:
        """A schema with further fields, after the ones it has."""
        return dataclasses.replace(self, fields=self.fields + fields)

    # Layouts ---------------------------------------------------------------------------------

    def embedding_layout(self) -> Layout:
        """The stacked embedding table: one block per table, in order of first use."""
        return _stack({field.table: field.size for field in self.sparse()})

    def wide_layout(self) -> Layout:
        """The stacked linear weights: one block per field, in order."""
        return _stack({field.name: field.size for field in self.sparse()})

    # Encoding --------------------------------------------------------------------------------

    def encode(self, name: str, values: Sequence[Any] | np.ndarray) -> Int32[np.ndarray, " N"]:
        """Turns values into indices within the field's own table.

        Args:
            name: A sparse field.
            values: Texts or ids for a hash field (empty text = missing); numbers for a category
                or bucket field (negative or NaN = missing).

        Returns:
            int32 indices, 0 .. size-1, or -1 for a missing or out-of-range value.
        """
        field = self.field(name)
        if field.kind is Kind.HASH:
            texts = values.tolist() if isinstance(values, np.ndarray) else values
            missing = np.fromiter((v is None or v == "" for v in texts), bool, len(texts))
            local = hashing.buckets(("" if v is None else v for v in texts), field.size)
            return np.where(missing, np.int32(-1), local).astype(np.int32)
        if field.kind is Kind.DENSE:
            raise ValueError(f"field {name!r} is dense: it has no index; feed its vector instead")
        numbers = np.asarray(values)
        if numbers.dtype.kind not in "iufb":
            raise ValueError(
                f"field {name!r} ({field.kind.value}): got values of type {numbers.dtype}; "
                "expected numbers; parse them first"
            )
        if field.kind is Kind.BUCKET:
            local = np.searchsorted(np.asarray(field.boundaries), numbers, side="right")
            known = numbers >= 0  # False for NaN as well
        else:
            known = (numbers >= 0) & (numbers < field.size)
            local = np.where(known, numbers, 0)
        return np.where(known, local, -1).astype(np.int32)

    def embedding_rows(self, name: str, local: np.ndarray) -> np.ndarray:
        """Rows of the stacked embedding table for local indices (-1 gives row 0), int32."""
        return _rows(self.embedding_layout().offsets[self.field(name).table], local)

    def wide_rows(self, name: str, local: np.ndarray) -> np.ndarray:
        """Rows of the stacked linear weights for local indices (-1 gives row 0), int32."""
        return _rows(self.wide_layout().offsets[self.field(name).name], local)

    def item_rows(
        self, items: Any, fields: Iterable[str] | None = None
    ) -> tuple[Int32[np.ndarray, "N F"], Int32[np.ndarray, "N F"]]:
        """Table rows of every item.

        Args:
            items: The data set's items; row 0 is a placeholder.
            fields: Names of the fields wanted; by default every sparse item field with a column.
                Whatever the order of the names, the columns follow the schema.

        Returns:
            Rows of the stacked embedding table and of the wide weights, [N+1, F] each; row 0
            is all zeros. F is 0 if there is no such field.
        """
        return self._table_rows(Side.ITEM, items, fields)

    def user_rows(
        self, users: Any, fields: Iterable[str] | None = None
    ) -> tuple[Int32[np.ndarray, "N F"], Int32[np.ndarray, "N F"]]:
        """Table rows of every user, for the fields that do not change with time; see item_rows."""
        return self._table_rows(Side.USER, users, fields)

    def tag_rows(
        self, vocabulary: Sequence[str], fields: Iterable[str] | None = None
    ) -> tuple[Int32[np.ndarray, "N F"], Int32[np.ndarray, "N F"]]:
        """Table rows of every tag in every interest-tag field.

        Args:
            vocabulary: Tag texts; entry 0 is a placeholder.
            fields: Names of interest-tag fields; by default all, the long window first.

        Returns:
            Rows of the stacked embedding table and of the wide weights, [T+1, F] each. The tag t
            at position f has rows [t, f]; row 0 is all zeros.
        """
        ours = [f.name for f in self.sparse(Side.USER) if f.column in (LONG_TAGS, SHORT_TAGS)]
        chosen = self._choose(ours, fields, "an interest-tag field")
        return self._encoded(((name, vocabulary) for name in chosen), len(vocabulary))

    def _table_rows(self, side: Side, table: Any, fields: Iterable[str] | None):
        static = [f.name for f in self.sparse(side) if f.static]
        chosen = self._choose(static, fields, f"a sparse {side.value} field with a column")
        entries = len(table.illust_id if side is Side.ITEM else table.user_id)
        return self._encoded(((name, self.values(name, table)) for name in chosen), entries)

    def _encoded(
        self, columns: Iterable[tuple[str, Any]], entries: int
    ) -> tuple[np.ndarray, np.ndarray]:
        none = np.zeros((entries, 0), np.int32)
        embedding, wide = [none], [none]
        for name, values in columns:
            local = self.encode(name, values)
            local[:1] = -1  # the placeholder
            embedding.append(self.embedding_rows(name, local)[:, None])
            wide.append(self.wide_rows(name, local)[:, None])
        return np.concatenate(embedding, axis=1), np.concatenate(wide, axis=1)

    def values(self, name: str, table: Any) -> Sequence[Any] | np.ndarray:
        """The raw values of a static field in the data set's items or users."""
        field = self.field(name)
        column = getattr(table, field.column)
        if field.position < 0:
            return column
        k = field.position
        return [entry[k] if len(entry) > k else "" for entry in column]

    def _choose(self, names: list[str], wanted: Iterable[str] | None, what: str) -> list[str]:
        if wanted is None:
            return names
        chosen = set(wanted)
        for name in chosen:
            if name not in names:
                self.field(name)
                raise ValueError(f"got the field {name!r}; expected {what}: {', '.join(names)}")
        return [name for name in names if name in chosen]


def _stack(sizes: Mapping[str, int]) -> Layout:
    offsets, used = {}, 1
    for name, size in sizes.items():
        offsets[name] = used
        used += size
    rows = -(-used // ROW_MULTIPLE) * ROW_MULTIPLE
    if rows > hashing.MAX_SIZE:
        raise ValueError(f"got {rows} rows in all; expected at most {hashing.MAX_SIZE}")
    return Layout(offsets, rows, used)


def _rows(offset: int, local: np.ndarray) -> np.ndarray:
    return np.where(local < 0, 0, local + np.int32(offset)).astype(np.int32)


def _unknown_name(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(known)}"
    return f"got the field {name!r}; expected a field of the schema; {hint}"
