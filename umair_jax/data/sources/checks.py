"""Columns of a table checked row by row: what cannot be used is counted with its row."""

# pyright: reportAttributeAccessIssue=false
# Arrow makes its compute functions when it is imported; no type checker sees them.

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from umair_jax.data.report import Report
from umair_jax.data.sources import RawInteractions, cells, tables
from umair_jax.data.sources.comma_separated import BLOCK_BYTES


@dataclasses.dataclass(frozen=True)
class Events:
    """Who, what and when of the rows of a piece.

    Attributes:
        user_id: R texts.
        illust_id: R texts.
        timestamp: int64 [R], unix seconds, -1 where of no use.
        usable: bool [R], rows with both ids and a point in time.
    """

    user_id: pa.StringArray
    illust_id: pa.StringArray
    timestamp: np.ndarray
    usable: np.ndarray

    def labelled(
        self,
        file: str,
        row: np.ndarray,
        label: np.ndarray,
        good: np.ndarray,
        username: pa.StringArray | None = None,
    ) -> RawInteractions:
        """The rows where `good` [R] holds, with their labels and names of users.

        Args:
            file: Name of the table.
            row: int64 [R], the rows of the piece.
            label: int8 [R], 0 or 1.
            good: bool [R].
            username: R texts, or None.
        """
        rows = np.flatnonzero(good)
        take = pa.array(rows)
        return RawInteractions(
            file=file,
            row=row[rows],
            user_id=self.user_id.take(take).dictionary_encode(),
            illust_id=self.illust_id.take(take).dictionary_encode(),
            timestamp=self.timestamp[rows],
            label=label[rows],
            username=None if username is None else username.take(take),
        )


def events(file: str, piece: tables.Piece, item: str, report: Report) -> Events:
    """Reads the columns `user_id`, `timestamp` and the items' ids.

    Args:
        file: Name of the table, for the report.
        piece: R of its rows.
        item: Name of the column with the items' ids.
        report: Where missing ids and bad times are counted.
    """
    usable = np.ones(len(piece.row), bool)
    columns = {}
    for name in ("user_id", item):
        columns[name], readable = ids(file, piece, name, report)
        missing = readable & pc.equal(columns[name], "").to_numpy(zero_copy_only=False)
        count("missing_id", file, piece.row, missing, name, columns[name], report)
        usable &= readable & ~missing
    shown, _ = cells.texts(piece.columns["timestamp"])
    timestamp, wrong = cells.times(shown)
    wrong |= timestamp < 0
    count("bad_timestamp", file, piece.row, wrong, "timestamp", shown, report)
    return Events(columns["user_id"], columns[item], timestamp, usable & ~wrong)


def ids(
    file: str, piece: tables.Piece, name: str, report: Report
) -> tuple[pa.StringArray, np.ndarray]:
    """Ids, and which of them are UTF-8, bool [R]; the others are counted."""
    column, wrong = cells.texts(piece.columns[name])
    count("bad_utf8_id", file, piece.row, wrong, name, column, report)
    return column, ~wrong


def count(
    kind: str,
    file: str,
    rows: np.ndarray,
    where: np.ndarray,
    field: str,
    shown: Any,
    report: Report,
) -> None:
    """Counts the rows of a piece where a problem occurs, with the first few values.

    Args:
        kind: A key of report.KINDS.
        file: Name of the table.
        rows: int64 [R], the rows of the piece.
        where: bool [R], those with the problem.
        field: Name of the column.
        shown: R values.
        report: Where they are counted.
    """
    found = np.flatnonzero(where)
    values = [shown[k] for k in found[:8].tolist()]
    values = [value.as_py() if isinstance(value, pa.Scalar) else value for value in values]
    report.add_many(kind, file, rows[found], field, values)


def digest(path: Path) -> str:
    """XXH3-128 of a file's content.

    Raises:
        ValueError: It cannot be read.
    """
    found = xxhash.xxh3_128()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                found.update(block)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    return found.hexdigest()
