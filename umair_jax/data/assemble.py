"""From raw items and interactions to checked columns: ids to rows, pictures, duplicates."""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from PIL import Image

from umair_jax.data import records
from umair_jax.data.dataset import Interactions, Items, Users, probabilities
from umair_jax.data.images import LARGEST_IMAGE_BYTES, PIXEL_LIMIT, upright_size
from umair_jax.data.log_spool import LogSpool
from umair_jax.data.report import Report
from umair_jax.data.sources import RawInteractions, RawItem, RawUser


class Catalogue:
    """Collects the items while their records are written.

    Args:
        report: Where problems are counted.
        pixel_limit: Largest picture, width x height.
    """

    def __init__(self, report: Report, pixel_limit: int = PIXEL_LIMIT):
        if pixel_limit < 1:
            raise ValueError(f"got pixel_limit {pixel_limit}; expected 1 or more pixels")
        self.rows: dict[str, int] = {}
        self.has_image: list[bool] = []
        self._columns: dict[str, list[Any]] = {
            name: [] for name in (*records.TEXTS, "tags", *records.NUMBERS)
        }
        self._report = report
        self._pixel_limit = pixel_limit
        self._texts: dict[str, str] = {}
        self._hash = xxhash.xxh3_128()
        self._fingerprint = ""  # known beforehand where it was restored

    @classmethod
    def restored(cls, table: pa.Table, fingerprint: str, report: Report) -> Catalogue:
        """The catalogue that `table` and `fingerprint` were made by; it takes no further items."""
        found = cls(report)
        found._columns = {name: table[name].to_pylist() for name in found._columns}
        for name in ("artist", "category"):
            found._columns[name] = [found._shared(text) for text in found._columns[name]]
        found._columns["tags"] = [
            tuple(found._shared(tag) for tag in tags) for tags in found._columns["tags"]
        ]
        found.rows = {name: k + 1 for k, name in enumerate(found._columns["illust_id"])}
        found.has_image = table["has_image"].to_pylist()
        found._fingerprint = fingerprint
        return found

    def collect(self, items: Iterable[RawItem]) -> Iterator[dict[str, Any]]:
        """Checks items one by one, remembers their columns and yields their records."""
        for item in items:
            if not item.illust_id:
                self._report.add("missing_id", item.file, item.row, "illust_id", "")
                continue
            if item.illust_id in self.rows:
                self._report.add("duplicate_item", item.file, item.row, "illust_id", item.illust_id)
                continue
            item, image = self._picture(item)
            tags = tuple(dict.fromkeys(self._shared(tag) for tag in item.tags if tag))
            if not tags:
                self._report.add("empty_tags", item.file, item.row, "tags", item.illust_id)
            artist, category = self._shared(item.artist), self._shared(item.category)
            item = dataclasses.replace(item, tags=tags, artist=artist, category=category)
            self.rows[item.illust_id] = len(self.rows) + 1
            self.has_image.append(image is not None)
            for name, column in self._columns.items():
                column.append(getattr(item, name))
            texts = [getattr(item, name) for name in records.TEXTS]
            self._hash.update(repr((texts, tags)).encode("utf-8", "replace"))
            self._hash.update(xxhash.xxh3_128_digest(image or b""))
            yield records.item_record(item, image)

    def _shared(self, text: str) -> str:
        """The text as it was first met: a million items have few artists and tags."""
        return self._texts.setdefault(text, text)

    def _picture(self, item: RawItem) -> tuple[RawItem, bytes | None]:
        if item.image is None:
            return item, None
        problem, size = probe(item.image, self._pixel_limit)
        if problem:
            value = f"{size[0]} x {size[1]}" if size else f"{len(item.image)} bytes"
            value = f"{value} ({item.illust_id})"
            self._report.add(problem, item.file, item.row, "image", value)
            return item, None
        if size and (item.width < 1 or item.height < 1):
            item = dataclasses.replace(item, width=size[0], height=size[1])
        return item, item.image

    def items(self) -> Items:
        """The columns, with their placeholder."""
        columns: dict[str, Any] = {"tags": ((), *self._columns["tags"])}
        columns |= {name: ("", *self._columns[name]) for name in records.TEXTS}
        columns |= {
            name: np.array([-1, *self._columns[name]], np.int64) for name in records.NUMBERS
        }
        return Items(**columns)

    def table(self) -> pa.Table:
        """The columns as they are stored, without placeholder."""
        types = {name: pa.string() for name in records.TEXTS}
        types |= {"tags": pa.list_(pa.string())}
        types |= dict.fromkeys(records.NUMBERS, pa.int64())
        columns = {name: pa.array(self._columns[name], type=kind) for name, kind in types.items()}
        return pa.table(columns | {"has_image": pa.array(self.has_image, type=pa.bool_())})

    def fingerprint(self) -> str:
        """Of ids, texts and pictures."""
        return self._fingerprint or self._hash.hexdigest()


def probe(image: bytes, pixel_limit: int) -> tuple[str, tuple[int, int] | None]:
    """Looks at a picture's header.

    Args:
        image: The encoded file.
        pixel_limit: Largest width x height.

    Returns:
        The kind of problem, empty if there is none, and width and height, as it is shown, where
        they can be read.
        A file that breaks off after its header is found when it is decoded.
    """
    if len(image) > LARGEST_IMAGE_BYTES:
        return "image_too_large", None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image)) as opened:
                size = upright_size(opened)
    except Image.DecompressionBombError:
        return "image_too_large", None
    except Exception:
        # Whatever the parser of a format meets in a broken header: struct.error, SyntaxError, ...
        return "broken_image", None
    if size[0] * size[1] > pixel_limit:
        return "image_too_large", size
    return "", size


# The log ------------------------------------------------------------------------------------


class People:
    """Collects the users: those known beside the log first, then those of the log."""

    def __init__(self, users: Iterable[RawUser]):
        self._rows: dict[str, int] = {}
        self._names: list[str] = []
        self._mixtures: dict[int, np.ndarray] = {}
        for user in users:
            row = self.row(user.user_id)
            self._names[row - 1] = user.username
            if user.true_mixture is not None:
                self._mixtures[row] = user.true_mixture

    def row(self, user_id: str) -> int:
        """The row of a user; a new one if nobody has that id."""
        if user_id not in self._rows:
            self._rows[user_id] = len(self._rows) + 1
            self._names.append("")
        return self._rows[user_id]

    def name(self, row: int, username: str) -> None:
        """Sets a user's name, unless one is known."""
        self._names[row - 1] = self._names[row - 1] or username

    def users(self) -> Users:
        """The columns, with their placeholder."""
        mixture = None
        if self._mixtures:
            mixture = np.zeros((len(self._rows) + 1, 4), np.float32)
            for row, values in self._mixtures.items():
                mixture[row] = values
        return Users(("", *self._rows), ("", *self._names), mixture)


def assemble_log(
    pieces: Iterable[RawInteractions],
    item_rows: dict[str, int],
    people: People,
    report: Report,
    spool: LogSpool | None = None,
) -> Interactions:
    """Turns the raw log into columns of rows.

    Args:
        pieces: The raw log.
        item_rows: Item rows by id.
        people: The users; those of the log are added.
        report: Where unknown items, repetitions and contradictions are counted.
        spool: Where the log waits until it is whole; None = in memory.

    Returns:
        The log in order.
    """
    spool, file = spool or LogSpool(), ""
    for piece in pieces:
        file = piece.file
        item = _rows(piece.illust_id, lambda text: item_rows.get(text, 0))
        unknown = np.flatnonzero(item == 0)
        report.add_many("unknown_item", file, piece.row[unknown], "illust_id",
                        [piece.illust_id[int(k)].as_py() for k in unknown[:8]])  # fmt: skip
        # Users of dropped rows only are nobody: they get no row.
        keep = np.flatnonzero(item > 0)
        user = _rows(piece.user_id.take(pa.array(keep)), people.row)
        if piece.username is not None:
            names = piece.username.take(pa.array(keep)).to_pylist()
            named = np.flatnonzero([bool(name) for name in names])
            for row, k in zip(*np.unique(user[named], return_index=True), strict=True):
                people.name(int(row), names[named[k]])
        truth = piece.true_probability
        part = Interactions(
            user=user,
            item=item[keep],
            timestamp=piece.timestamp[keep].astype(np.int64),
            label=piece.label[keep].astype(np.int8),
            true_probability=None if truth is None else probabilities(truth[keep]),
        )
        spool.add(part, piece.row[keep])
    return spool.ordered(file, report)


def _rows(texts: pa.Array, row_of: Any) -> np.ndarray:
    """Rows of ids; every distinct id is looked up once, in order of first appearance."""
    if not isinstance(texts, pa.DictionaryArray):
        texts = texts.dictionary_encode()
    codes = texts.indices.to_numpy(zero_copy_only=False)
    names = texts.dictionary.to_pylist()
    rows = np.zeros(len(names), np.int32)
    used, first = np.unique(codes, return_index=True)
    for code in used[np.argsort(first)].tolist():
        rows[code] = row_of(names[code])
    return rows[codes]


def fingerprint(catalogue: str, items: Items, users: Users, log: Interactions) -> str:
    """Of all content of a data set."""
    digest = xxhash.xxh3_128(catalogue.encode("ascii"))
    arrays = [getattr(items, name) for name in records.NUMBERS]
    arrays += [getattr(log, field.name) for field in dataclasses.fields(log)]
    arrays.append(users.true_mixture)
    for array in arrays:
        # As it is in memory: copies of a long log are gigabytes.
        whole = b"-" if array is None else np.ascontiguousarray(array).view(np.uint8).data
        digest.update(whole)
    digest.update(repr((users.user_id, users.username)).encode("utf-8", "replace"))
    return digest.hexdigest()
