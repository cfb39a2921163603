"""The drawings of the wall: which, in what order, by page and by search."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from umair_jax.data.dataset import Dataset

PAGE = 60
_UNKNOWN_SHOWN = 5


class UnknownDrawings(ValueError):  # noqa: N818 - it names them
    """Ids that no drawing of the wall has; `ids` are they."""

    def __init__(self, ids: Iterable[str]) -> None:
        """Names the first few."""
        self.ids = list(ids)
        named = ", ".join(repr(name[:60]) for name in self.ids[:_UNKNOWN_SHOWN])
        more = len(self.ids) - _UNKNOWN_SHOWN
        super().__init__(
            f"got unknown drawings {named}{f' and {more} more' if more > 0 else ''}; expected ids "
            "of /api/drawings"
        )


@dataclasses.dataclass(frozen=True)
class Page:
    """A part of the wall.

    Attributes:
        rows: Of its drawings.
        total: Drawings that are found.
        pages: Pages that they fill.
    """

    rows: tuple[int, ...]
    total: int
    pages: int


class Wall:
    """All drawings that may be seen.

    The order is drawn once: every artist's first drawing, then every artist's second, and so on,
    so that the first pages are varied however much a few artists have made.
    """

    def __init__(self, dataset: Dataset, shown: Bool[np.ndarray, " N1"], seed: int = 0) -> None:
        """Orders the drawings and reads their words.

        Args:
            dataset: The catalogue.
            shown: Rows that may be seen.
            seed: Of the order.
        """
        self._dataset, items = dataset, dataset.items
        self._order = _varied(np.flatnonzero(shown), items.artist, seed)
        self._row = {items.illust_id[row]: row for row in self._order}
        self._words = [
            "\n".join((items.title[row], items.artist[row], *items.tags[row])).casefold()
            for row in self._order
        ]

    def __len__(self) -> int:
        """How many drawings may be seen."""
        return len(self._order)

    def rows(self, ids: Iterable[str]) -> list[int]:
        """Rows of drawings by id; repetitions count once, at their last place.

        Raises:
            UnknownDrawings: Some are not on the wall.
        """
        kept = list(dict.fromkeys(reversed(list(ids))))[::-1]
        if unknown := [name for name in kept if name not in self._row]:
            raise UnknownDrawings(unknown)
        return [self._row[name] for name in kept]

    def page(self, number: int, query: str = "") -> Page:
        """A page, from 0; those past the end are empty.

        Args:
            number: Which.
            query: Words that title, artist and tags of a drawing must have, all of them, in any
                case and order. Drawings with the whole text as a tag come first.
        """
        found = self._search(query) if query.strip() else self._order
        rows = found[number * PAGE : (number + 1) * PAGE]
        return Page(tuple(rows), len(found), -(-len(found) // PAGE))

    def card(self, row: int) -> dict[str, Any]:
        """What a visitor is told of a drawing."""
        items = self._dataset.items
        return {
            "illust_id": items.illust_id[row],
            "title": " ".join(items.title[row].split()),
            "artist": " ".join(items.artist[row].split()),
            "tags": list(items.tags[row]),
        }

    def _search(self, query: str) -> list[int]:
        wanted = query.casefold().split()
        found = [
            row
            for row, words in zip(self._order, self._words, strict=True)
            if all(word in words for word in wanted)
        ]
        tag, tags = " ".join(wanted), self._dataset.items.tags
        return sorted(found, key=lambda row: tag not in map(str.casefold, tags[row]))


def _varied(rows: Int[np.ndarray, " N"], artists: tuple[str, ...], seed: int) -> list[int]:
    before: Counter[str] = Counter()
    rounds = []
    for row in np.random.default_rng(seed).permutation(rows).tolist():
        artist = artists[row]
        rounds.append((before[artist] if artist else 0, row))
        before[artist] += 1
    return [row for _, row in sorted(rounds, key=lambda one: one[0])]
