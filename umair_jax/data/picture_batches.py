"""Batches of decoded pictures: as BatchSource, with the pixels of each item."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

from umair_jax.data import images
from umair_jax.data.batches import WEIGHT, BatchSource

IMAGE, ITEM = "image", "item"


@runtime_checkable
class Pictures(Protocol):
    """Encoded pictures by item row; safe to call from threads."""

    def image_bytes(self, row: int) -> bytes | None:
        """The encoded picture of a row; None or empty where there is none."""
        ...


class PictureSource(BatchSource):
    """Items with their pictures, decoded as they are needed.

    Besides the columns a batch has "image", uint8 [B, S, S, 3], letter-boxed on white. A picture
    that cannot be decoded is white, has weight 0, and is listed in `bad`.

    Attributes:
        bad: Item row -> reason, of the broken pictures met so far.
    """

    def __init__(
        self,
        pictures: Pictures,
        rows: Int32[np.ndarray, " E"],
        batch_size: int,
        size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        pixel_limit: int = images.PIXEL_LIMIT,
        threads: int = 2,
    ) -> None:
        """Checks the rows; decodes nothing.

        Args:
            pictures: Where encoded pictures are.
            rows: Item rows to serve.
            batch_size: Global batch size.
            size: Height and width S, in pixels.
            seed: Of the order.
            shuffle: A new order in each epoch.
            pixel_limit: Largest width x height of a stored picture.
            threads: Threads that decode one batch; Pillow decodes outside the interpreter's lock.
        """
        super().__init__({ITEM: np.asarray(rows, np.int32)}, batch_size, seed, shuffle)
        self._pictures, self._size, self._limit = pictures, size, pixel_limit
        self._pool = ThreadPoolExecutor(threads)
        self.bad: dict[int, str] = {}

    def _gather(self, order: np.ndarray) -> dict[str, np.ndarray]:
        batch = super()._gather(order)
        rows = batch[ITEM].tolist()
        squares = list(self._pool.map(self._decode, rows))
        for i, square in enumerate(squares):
            if isinstance(square, str):
                self.bad[rows[i]] = square
                squares[i] = np.full((self._size, self._size, 3), 255, np.uint8)
                batch[WEIGHT][i] = 0.0
        return {**batch, IMAGE: np.stack(squares)}

    def _decode(self, row: int) -> UInt8[np.ndarray, "S S 3"] | str:
        data = self._pictures.image_bytes(row)
        try:
            return images.load_square(data, self._size, self._limit)
        except images.BadImage as error:
            return str(error)


def report(sources: Mapping[str, PictureSource]) -> list[dict[str, object]]:
    """The broken pictures of some sources: [{"row", "part", "reason"}]."""
    return [
        {"row": row, "part": part, "reason": reason}
        for part, source in sources.items()
        for row, reason in sorted(source.bad.items())
    ]
