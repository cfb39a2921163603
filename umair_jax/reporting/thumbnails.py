"""Pictures small enough to stand inside the page."""

from __future__ import annotations

import base64
import functools
import html

from umair_jax.data.dataset import Dataset
from umair_jax.data.images import BadImage, thumbnail

SIZE = 144


class Thumbnails:
    """Drawings of a data set as elements of HTML, each encoded once."""

    def __init__(self, dataset: Dataset, size: int = SIZE) -> None:
        """Takes the pictures' source.

        Args:
            dataset: Items and their pictures.
            size: Pixels along both sides.
        """
        self._dataset, self._size = dataset, size
        self._uri = functools.cache(self._encode)

    def title(self, item: int) -> str:
        """The title of a drawing, or a stand-in; not escaped."""
        items = self._dataset.items
        return " ".join(items.title[item].split()) or f"untitled, {items.illust_id[item]}"

    def described(self, item: int) -> str:
        """Title and artist in one line; not escaped."""
        artist = " ".join(self._dataset.items.artist[item].split())
        return self.title(item) + (f", by {artist}" if artist else "")

    def element(self, item: int) -> str:
        """The picture on white, or a box that says that there is none."""
        said = html.escape(self.described(item))
        uri = self._uri(item)
        if not uri:
            return f'<span class="no-picture" role="img" aria-label="{said}">no picture</span>'
        return (
            f'<img src="{uri}" alt="{said}" width="{self._size}" height="{self._size}" '
            'decoding="async">'
        )

    def _encode(self, item: int) -> str:
        try:
            encoded = thumbnail(self._dataset.image_bytes(item), self._size)
        except BadImage:
            return ""
        return "data:image/webp;base64," + base64.b64encode(encoded).decode()
