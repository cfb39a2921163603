"""Thumbnails in memory: each encoded once, the ones that nobody asked for lately given up."""

from __future__ import annotations

import threading
from collections import OrderedDict

from umair_jax.data.dataset import Dataset
from umair_jax.data.images import BadImage, thumbnail

SIZE = 288
_LOCKS = 16


class Pictures:
    """WebP files of a catalogue's drawings, for several threads.

    Attributes:
        version: Stands in their addresses: changes with the catalogue and the size.
    """

    def __init__(self, dataset: Dataset, cache_bytes: int) -> None:
        """Starts empty.

        Args:
            dataset: Where the pictures are.
            cache_bytes: Memory for encoded ones.
        """
        self._dataset, self._room = dataset, cache_bytes
        fingerprint = dataset.catalogue_fingerprint or dataset.fingerprint
        self.version = f"{fingerprint[:16]}-{SIZE}"
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._encoding = [threading.Lock() for _ in range(_LOCKS)]

    def read(self, row: int) -> bytes:
        """The thumbnail of a row; empty if there is no usable picture."""
        # Whoever asks for a picture that is just being encoded waits for it.
        with self._encoding[row % _LOCKS]:
            with self._lock:
                if row in self._kept:
                    self._kept.move_to_end(row)
                    return self._kept[row]
            try:
                encoded = thumbnail(self._dataset.image_bytes(row), SIZE)
            except BadImage:
                encoded = b""
            self._keep(row, encoded)
            return encoded

    def _keep(self, row: int, encoded: bytes) -> None:
        with self._lock:
            self._kept[row] = encoded
            self._room -= len(encoded)
            while self._room < 0 and len(self._kept) > 1:
                self._room += len(self._kept.popitem(last=False)[1])
