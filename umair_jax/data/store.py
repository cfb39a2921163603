"""Opens a prepared data set: columns in memory, pictures by random access."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from umair_jax.data import records
from umair_jax.data.dataset import Dataset, Interactions, Items, Users

__all__ = ["Dataset", "Interactions", "Items", "StoredImages", "Users", "describe", "load"]


def load(data_dir: str | os.PathLike[str]) -> Dataset:
    """Opens the data set that `prepare` wrote.

    Args:
        data_dir: Its folder; it may have been moved.

    Returns:
        The data set; pictures are read when asked for.

    Raises:
        ValueError: There is no data set, one of another format, or one with broken files.
    """
    folder = Path(data_dir)
    description = describe(folder)
    if description is None:
        raise ValueError(
            f"{folder}: got no {records.DESCRIPTION}; expected a prepared data set; "
            "run python -m umair_jax.prepare --data_dir=... first"
        )
    with records.unbroken(folder / records.CATALOGUE):
        table = pq.read_table(folder / records.CATALOGUE)
    texts: dict[str, Any] = {name: ("", *table[name].to_pylist()) for name in records.TEXTS}
    numbers: dict[str, Any] = {
        name: np.concatenate([[-1], table[name].to_numpy()]).astype(np.int64)
        for name in records.NUMBERS
    }
    users, log = records.read_users(folder), records.read_interactions(folder)
    for name, rows in (("items", len(table)), ("users", len(users)), ("interactions", len(log))):
        expected = description["summary"][name]
        if rows != expected:
            raise ValueError(
                f"{folder}: got {rows:,} {name}, expected {expected:,}; remove the folder and "
                "prepare it again"
            )
    tags = ((), *(tuple(row) for row in table["tags"].to_pylist()))
    return Dataset(
        name=description["name"],
        simulated=description["simulated"],
        items=Items(tags=tags, **texts, **numbers),
        users=users,
        interactions=log,
        fingerprint=description["fingerprint"],
        catalogue_fingerprint=description["catalogue_fingerprint"],
        images=StoredImages(
            records.item_files(folder), table["has_image"].to_numpy(zero_copy_only=False)
        ),
    )


def describe(data_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of dataset.json, or None where there is none.

    Raises:
        ValueError: It cannot be read, or has another format.
    """
    path = Path(data_dir) / records.DESCRIPTION
    try:
        description = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); remove it and prepare again") from None
    if description.get("format") != records.VERSION:
        raise ValueError(
            f"{path}: got format {description.get('format')!r}; expected {records.VERSION!r}; "
            "remove the folder and prepare again"
        )
    return description


class StoredImages:
    """Encoded pictures in ArrayRecord files. Safe to use from threads; can be pickled.

    Args:
        files: The files, in order.
        has_image: Whether each item has a picture; entry 0 is item row 1.
    """

    def __init__(self, files: list[str], has_image: np.ndarray):
        self._files = files
        self._has_image = has_image
        self._source: Any = None
        self._lock = threading.Lock()

    def read(self, row: int) -> bytes:
        """The encoded picture of an item row, 1 .. N; empty if it has none.

        Raises:
            ValueError: A file is broken or missing.
        """
        if not self._has_image[row - 1]:
            return b""
        from tensorflow_datasets.proto import tf_example_pb2

        # Parsed here, not by TFDS: its reader would decode the picture, ten times as slow.
        parse: Any = tf_example_pb2  # its classes are made when it is imported
        with records.unbroken(f"{Path(self._files[0]).parent}, item row {row}"):
            example = parse.Example.FromString(self._open()[row - 1])
        return example.features.feature["image"].bytes_list.value[0]

    def _open(self) -> Any:
        with self._lock:
            if self._source is None:
                from array_record.python.array_record_data_source import ArrayRecordDataSource

                self._source = ArrayRecordDataSource(self._files)
        return self._source

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self._files, "has_image": self._has_image}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["files"], state["has_image"])
