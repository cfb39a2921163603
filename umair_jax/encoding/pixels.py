"""The pictures of a catalogue, decoded once: for encoders that are trained on them again and again.

One file of uint8, mapped into memory: a batch reads its own pictures from it and no others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from umair_jax.encoding.config import ExtractConfig
from umair_jax.encoding.decode import Pictures, decoded_batches, in_batches

PIXELS = "pixels.npy"
_WHITE = 255


def decode_all(
    pictures: Pictures,
    usable: Bool[np.ndarray, " N1"],
    config: ExtractConfig,
    folder: str | os.PathLike[str],
) -> None:
    """Decodes every usable picture at the encoder's size; does nothing where that is done.

    Args:
        pictures: Where the bytes are.
        usable: Which rows have a picture that can be decoded; the others become white.
        config: Size of the pictures, and how they are decoded.
        folder: Of the feature bank that the pictures belong to.
    """
    path, shape = Path(folder) / PIXELS, _shape(len(usable), config)
    if path.is_file():
        return
    partial = path.with_suffix(".partial")
    stored = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
    stored[~usable] = _WHITE
    batches: list[Sequence[int]] = in_batches(np.flatnonzero(usable).tolist(), config.image_batch)
    decoded = decoded_batches(pictures, batches, config)
    for rows, batch in zip(batches, decoded, strict=True):
        stored[rows] = batch.images[: len(rows)]
    stored.flush()
    os.replace(partial, path)


def load(
    rows: int, config: ExtractConfig, folder: str | os.PathLike[str]
) -> UInt8[np.ndarray, "N1 S S 3"]:
    """The pictures that `decode_all` left, mapped into memory.

    Args:
        rows: How many there are, row 0 counted.
        config: Size of the pictures.
        folder: Of the feature bank that the pictures belong to.

    Raises:
        ValueError: The file holds something else.
    """
    path, shape = Path(folder) / PIXELS, _shape(rows, config)
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.shape != shape or found.dtype != np.uint8:
        raise ValueError(
            f"{path}: got {found.dtype} {found.shape}, expected uint8 {shape}; remove the file, it "
            "is made again"
        )
    return found


def _shape(rows: int, config: ExtractConfig) -> tuple[int, int, int, int]:
    size = config.image.image_size
    return rows, size, size, 3
