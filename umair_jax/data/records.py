"""The data set on disk: TFDS data sets of ArrayRecord files, written and described.

    <data_dir>/dataset.json         what it is, what was wrong, fingerprints; written last
    <data_dir>/catalogue.parquet    the items' columns, without pictures: start-up reads this
    <data_dir>/umair/items/1.0.0/         TFDS: one record an item, with its encoded picture
    <data_dir>/umair/users/1.0.0/         TFDS: columns, up to 65,536 users a record
    <data_dir>/umair/interactions/1.0.0/  TFDS: columns, up to 65,536 interactions a record

Items keep one record each, so that `tfds.builder_from_directory` gives anybody pictures with their
texts. Users and interactions are only ever read whole, and a record per event would be 100 times
slower. An item without a picture holds a white pixel and has_image = False.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.dataset_info import DatasetIdentity
from tensorflow_datasets.core.features import Encoding

from umair_jax.data.dataset import Interactions, Users

VERSION = "1.0.0"
CHUNK = 65_536
SHARD_RECORDS = 10_000
_AT_ONCE = 256  # records between two descriptions of what is written
DESCRIPTION = "dataset.json"
CATALOGUE = "catalogue.parquet"
ROOT = "umair"
TEXTS = ("illust_id", "title", "artist", "description", "category")
NUMBERS = (
    "width",
    "height",
    "total_view",
    "total_bookmarks",
    "sanity_level",
    "restrict",
    "x_restrict",
    "published",
)
_COLUMNS = {
    "user": np.int32,
    "item": np.int32,
    "timestamp": np.int64,
    "label": np.int8,
    "true_probability": np.float32,
    "sampled": np.uint8,
}
_TABLES = {
    "items": "One record an item, row order.",
    "users": "Columns of users, row order.",
    "interactions": "Columns of the log.",
}
_STORED = {"user": "user_row", "item": "item_row"}  # names on disk, where they differ


def _features(table: str, optional: tuple[str, ...]) -> tfds.features.FeaturesDict:
    f = tfds.features
    if table == "items":
        columns: dict[str, Any] = {"image": f.Image(), "has_image": np.bool_}
        columns |= {name: f.Text() for name in TEXTS}
        columns |= {"tags": f.Sequence(f.Text())}
        return f.FeaturesDict(columns | dict.fromkeys(NUMBERS, np.int64))
    if table == "users":
        columns = {"user_id": f.Sequence(f.Text()), "username": f.Sequence(f.Text())}
        if "true_mixture" in optional:
            columns["true_mixture"] = _column((None, 4), np.float32)
        return f.FeaturesDict(columns)
    required = ("user", "item", "timestamp", "label")
    return f.FeaturesDict(
        {
            _STORED.get(name, name): _column((None,), kind)
            for name, kind in _COLUMNS.items()
            if name in required or name in optional
        }
    )


def _column(shape: tuple[int | None, ...], kind: Any) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=kind, encoding=Encoding.BYTES)


def write_items(folder: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes the items; see item_record. The records may be made while they are written."""
    _write("items", folder, records)


def write_users(folder: Path, users: Users) -> None:
    """Writes the users without their placeholder."""
    optional = () if users.true_mixture is None else ("true_mixture",)

    def records() -> Iterator[dict[str, Any]]:
        for begin in range(1, len(users) + 1, CHUNK):
            chunk = slice(begin, begin + CHUNK)
            record: dict[str, Any] = {
                "user_id": list(users.user_id[chunk]),
                "username": list(users.username[chunk]),
            }
            if users.true_mixture is not None:
                record["true_mixture"] = users.true_mixture[chunk]
            yield record

    _write("users", folder, records(), optional)


def write_interactions(folder: Path, interactions: Interactions) -> None:
    """Writes the log in its order."""
    columns = {
        name: getattr(interactions, name)
        for name in _COLUMNS
        if getattr(interactions, name) is not None
    }

    def records() -> Iterator[dict[str, Any]]:
        for begin in range(0, len(interactions), CHUNK):
            yield {
                _STORED.get(name, name): column[begin : begin + CHUNK].astype(_COLUMNS[name])
                for name, column in columns.items()
            }

    _write("interactions", folder, records(), tuple(columns))


def item_record(item: Any, image: bytes | None) -> dict[str, Any]:
    """The record of one item, from an object with the catalogue's fields."""
    return {
        "image": io.BytesIO(image or _white_pixel()),
        "has_image": bool(image),
        "tags": list(item.tags),
        **{name: getattr(item, name) for name in TEXTS + NUMBERS},
    }


@functools.cache
def _white_pixel() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (255, 255, 255)).save(buffer, "PNG")
    return buffer.getvalue()


def _write(
    table: str,
    folder: Path,
    records: Iterable[dict[str, Any]],
    optional: tuple[str, ...] = (),
) -> None:
    """Writes records in their order, a shard after the other, as they come.

    Not through a TFDS builder: it holds all records in memory until the last one is there, and
    needs TensorFlow where they are more than 1 GB.
    """
    place = _place(table, folder)
    place.mkdir(parents=True)
    identity = DatasetIdentity(
        name=ROOT,
        version=tfds.core.Version(VERSION),
        data_dir=str(place),
        module_name=__name__,
        config_name=table,
        config_description=_TABLES[table],
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Items, users and interactions for recommendation.",
        features=_features(table, optional),
        disable_shuffling=True,  # the order of the records is the order of the rows
    )
    writer = tfds.core.SequentialWriter(info, SHARD_RECORDS, file_format="array_record")
    writer.initialize_splits(["train"])
    records = iter(records)
    while some := list(itertools.islice(records, _AT_ONCE)):
        writer.add_examples({"train": some})
    writer.close_all()


def read_users(folder: Path) -> Users:
    """Reads the users and puts the placeholder back.

    Raises:
        ValueError: A file is broken or missing.
    """
    texts: dict[str, list[str]] = {"user_id": [""], "username": [""]}
    mixtures = [np.zeros((1, 4), np.float32)]
    for record in _read("users", folder):
        for name, column in texts.items():
            column.extend(text.decode("utf-8") for text in record[name])
        if "true_mixture" in record:
            mixtures.append(record["true_mixture"])
    mixture = np.concatenate(mixtures) if len(mixtures) > 1 else None
    return Users(tuple(texts["user_id"]), tuple(texts["username"]), mixture)


def read_interactions(folder: Path) -> Interactions:
    """Reads the whole log.

    Raises:
        ValueError: A file is broken or missing.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for record in _read("interactions", folder):
        for name in _COLUMNS:
            stored = _STORED.get(name, name)
            if stored in record:
                parts.setdefault(name, []).append(record[stored])
    columns = {name: np.concatenate(part) for name, part in parts.items()}
    if "sampled" in columns:
        columns["sampled"] = columns["sampled"].astype(bool)
    return Interactions(**columns)


def _read(table: str, folder: Path) -> Iterator[dict[str, Any]]:
    place = _place(table, folder)
    with unbroken(place):
        builder: Any = tfds.builder_from_directory(str(place))
        yield from builder.as_data_source("train")


def item_files(folder: Path) -> list[str]:
    """The ArrayRecord files of the items, in order.

    Raises:
        ValueError: Their description is broken or missing.
    """
    place = _place("items", folder)
    with unbroken(place):
        builder = tfds.builder_from_directory(str(place))
        return [str(place / name) for name in sorted(builder.info.splits["train"].filenames)]


@contextlib.contextmanager
def unbroken(place: str | Path) -> Iterator[None]:
    """Names the place, and what to do, where the readers of files meet broken ones.

    Raises:
        ValueError: In place of whatever a reader raises: Riegeli's, Arrow's, TFDS's own.
    """
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{place}: cannot be read ({text}); expected whole files; remove the data set's folder "
            "and prepare it again"
        ) from error


def _place(table: str, folder: Path) -> Path:
    return Path(folder) / ROOT / table / VERSION
