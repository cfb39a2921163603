"""A user's own data: a table of items, their pictures, and a table of interactions.

    items.parquet | items.csv | items.jsonl
    images/
    interactions.parquet | interactions.csv | interactions.jsonl

docs/data.md lists the columns. Nothing is dropped without an entry in the report.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from umair_jax.data import records
from umair_jax.data.report import Report
from umair_jax.data.sources import RawInteractions, RawItem, RawUser, cells, checks, tables
from umair_jax.data.sources.pictures import Pictures

IMAGES = "images"
_TEXTS = tuple(name for name in records.TEXTS if name != "illust_id")
_COUNTS = tuple(name for name in records.NUMBERS if name != "published")
_ITEMS = tables.Wanted(
    required=("illust_id",),
    optional=("image", *_TEXTS, "tags", *records.NUMBERS),
    lists=("tags",),
    multiline=(*_TEXTS, "tags"),
)
_INTERACTIONS = tables.Wanted(
    required=("user_id", "illust_id", "timestamp"), optional=("label", "username")
)


class Folder:
    """Reads a folder of a user's own.

    Args:
        path: The folder.

    Raises:
        ValueError: It is no folder, or lacks one of the two tables.
    """

    name = "folder"
    simulated = False
    negatives = "uniform"

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_dir():
            got = "a file" if self.path.exists() else "nothing"
            raise ValueError(f"{self.path}: got {got}; expected a folder with items; mend --path")
        self._items = tables.find(self.path, "items")
        self._log = tables.find(self.path, "interactions")
        self._pictures = Pictures(self.path / IMAGES)

    def request(self) -> dict[str, Any]:
        """The contents of both tables; names, sizes and times of the pictures."""
        return {
            "name": self.name,
            "tables": {path.name: checks.digest(path) for path in (self._items, self._log)},
            "images": self._pictures.fingerprint(),
        }

    def items(self, report: Report) -> Iterator[RawItem]:
        """All items with a readable id, each with its picture."""
        for piece in tables.read(self._items, _ITEMS, report):
            yield from _ItemPiece(self._items.name, piece, report).items(self._pictures)

    def users(self) -> Iterator[RawUser]:
        """None: the log's own are all."""
        yield from ()

    def interactions(self, report: Report) -> Iterator[RawInteractions]:
        """The log in pieces. Without a column `label` every row is a bookmark."""
        file = self._log.name
        for piece in tables.read(self._log, _INTERACTIONS, report):
            events = checks.events(file, piece, "illust_id", report)
            good = events.usable
            label = np.ones(len(good), np.int8)
            if "label" in piece.columns:
                shown, _ = cells.texts(piece.columns["label"])
                label, wrong = cells.labels(shown)
                checks.count("bad_label", file, piece.row, wrong, "label", shown, report)
                good &= ~wrong
            username = None
            if "username" in piece.columns:
                username, wrong = cells.texts(piece.columns["username"])
                checks.count("bad_utf8", file, piece.row, wrong, "username", username, report)
            yield events.labelled(file, piece.row, label, good, username)


class _ItemPiece:
    """The checked columns of some items."""

    def __init__(self, file: str, piece: tables.Piece, report: Report):
        self.file, self.row, self.report = file, piece.row, report
        self.ids, self.usable = checks.ids(file, piece, "illust_id", report)
        there = piece.columns
        self.columns: dict[str, list[Any]] = {}
        for name in ("image", *_TEXTS):
            if name in there:
                column, wrong = cells.texts(there[name])
                # A dropped row is counted once, for its id.
                self._problem("bad_utf8", wrong & self.usable, name, column)
                self.columns[name] = column.to_pylist()
        if "tags" in there:
            lists, wrong = cells.tags(there["tags"])
            self._problem("bad_utf8", wrong & self.usable, "tags", lists)
            self.columns["tags"] = lists
        for name in _COUNTS:
            if name in there:
                shown, _ = cells.texts(there[name])
                values, wrong, negative = cells.numbers(shown)
                self._problem("not_a_number", wrong & self.usable, name, shown)
                self._problem("negative_number", negative & self.usable, name, shown)
                self.columns[name] = values.tolist()
        if "published" in there:
            shown, _ = cells.texts(there["published"])
            values, wrong = cells.times(shown)
            self._problem("bad_published", wrong & self.usable, "published", shown)
            self.columns["published"] = values.tolist()

    def _problem(self, kind: str, where: np.ndarray, field: str, shown: Any) -> None:
        checks.count(kind, self.file, self.row, where, field, shown, self.report)

    def items(self, pictures: Pictures) -> Iterator[RawItem]:
        ids = self.ids.to_pylist()
        names = self.columns.pop("image", [""] * len(ids))
        for k in np.flatnonzero(self.usable).tolist():
            row = int(self.row[k])
            image = None
            if ids[k]:  # the others are counted, and left out, by whoever reads this
                image = pictures.find(ids[k], names[k], self.file, row, self.report)
            values = {name: column[k] for name, column in self.columns.items()}
            yield RawItem(self.file, row, ids[k], image, **values)
