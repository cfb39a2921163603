"""Pictures decoded ahead of the encoder, by threads or by processes, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, UInt8

from umair_jax.data import images as image_files
from umair_jax.encoding.config import ExtractConfig


@runtime_checkable
class Pictures(Protocol):
    """Where encoded pictures come from; read from several threads, or copied to processes."""

    def image_bytes(self, row: int) -> bytes | None:
        """The encoded picture of a row; None or empty where the item has none."""
        ...


class Decoded(NamedTuple):
    """A batch of pictures, padded to the full batch size with white ones."""

    images: UInt8[np.ndarray, "B S S 3"]
    usable: Bool[np.ndarray, "n"]
    reasons: tuple[tuple[int, str], ...]
    """(row, reason) of pictures that are there but broken."""
    missing: int
    """Items without a picture."""


class _Decode:
    """Rows of a batch -> the batch; a class, so that it can be sent to a process."""

    def __init__(self, pictures: Pictures, batch: int, size: int, pixel_limit: int) -> None:
        self._pictures, self._batch = pictures, batch
        self._size, self._pixel_limit = size, pixel_limit

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        squares = np.full((self._batch, self._size, self._size, 3), 255, np.uint8)
        usable = np.zeros(len(rows), bool)
        reasons, missing = [], 0
        for i, row in enumerate(rows):
            data = self._pictures.image_bytes(row)
            if not data:
                missing += 1
                continue
            try:
                squares[i] = image_files.load_square(data, self._size, self._pixel_limit)
                usable[i] = True
            except image_files.BadImage as error:
                reasons.append((int(row), str(error)))
        return {"images": squares, "usable": usable, "reasons": reasons, "missing": missing}


def decoded_batches(
    pictures: Pictures, batches: Sequence[Sequence[int]], config: ExtractConfig
) -> Iterator[Decoded]:
    """Decodes batches of rows in order, some of them ahead of the caller.

    Args:
        pictures: Where the bytes are.
        batches: Rows of each batch, at most `config.image_batch`.
        config: Size of the pictures; `decode_workers` processes, or `decode_threads` threads.
    """
    decode = _Decode(pictures, config.image_batch, config.image.image_size, config.pixel_limit)
    source = grain.MapDataset.source([list(rows) for rows in batches]).map(decode)
    ahead = 2 * (config.decode_workers or config.decode_threads)
    options = grain.ReadOptions(
        num_threads=1 if config.decode_workers else config.decode_threads,
        prefetch_buffer_size=1 if config.decode_workers else ahead,
    )
    stream = source.to_iter_dataset(options)
    if config.decode_workers:
        # Grain's workers look at a flag, which nobody parses outside absl's own programs.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(
            grain.MultiprocessingOptions(config.decode_workers, per_worker_buffer_size=2)
        )
    iterator = iter(stream)
    try:
        for found in iterator:
            reasons = tuple((int(row), str(reason)) for row, reason in found["reasons"])
            yield Decoded(found["images"], found["usable"], reasons, int(found["missing"]))
    finally:
        with contextlib.suppress(AttributeError):
            iterator.close()


def in_batches(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    """Rows in order, `size` at a time."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
