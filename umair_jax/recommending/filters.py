"""What may be shown to somebody at all."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool

from umair_jax.data.dataset import Dataset
from umair_jax.recommending.person import Person


@dataclasses.dataclass(frozen=True)
class Filters:
    """Rules of a site or of a person.

    Attributes:
        bookmarked: Whether drawings that the person has bookmarked may come again.
        shown: Whether drawings may come again that the log has shown and he passed over.
        block_tags: Tags of which a drawing must have none; case does not matter.
        max_sanity_level: Highest rating; drawings without a rating are left out then. None = any.
    """

    bookmarked: bool = False
    shown: bool = True
    block_tags: tuple[str, ...] = ()
    max_sanity_level: int | None = None

    def __post_init__(self):
        if any(not tag.strip() for tag in self.block_tags):
            raise ValueError(f"block_tags: got {self.block_tags!r}; expected no empty tag")


class Rules:
    """Filters over one catalogue; finds the drawings of a tag once."""

    def __init__(self, dataset: Dataset) -> None:
        """Reads the tags.

        Args:
            dataset: The catalogue.
        """
        self._items = dataset.items
        self._tagged: dict[str, list[int]] = {}
        for row, tags in enumerate(dataset.items.tags):
            for tag in tags:
                self._tagged.setdefault(tag.casefold(), []).append(row)

    def unknown(self, filters: Filters) -> tuple[str, ...]:
        """Blocked tags that no drawing has: misspelt ones, perhaps."""
        return tuple(t for t in filters.block_tags if t.strip().casefold() not in self._tagged)

    def allowed(self, person: Person, filters: Filters, moment: int) -> Bool[np.ndarray, " N1"]:
        """Which drawings the person can be shown.

        Args:
            person: Who asks.
            filters: The rules.
            moment: Unix seconds; drawings that are published later are left out, those of an
                unknown time are not.

        Returns:
            By row; the placeholder in row 0 never.
        """
        found = self._items.published <= moment
        if not filters.bookmarked:
            found[person.liked] = False
        if not filters.shown:
            found[person.shown] = False
        for tag in filters.block_tags:
            found[self._tagged.get(tag.strip().casefold(), [])] = False
        if filters.max_sanity_level is not None:
            level = self._items.sanity_level
            found &= (level >= 0) & (level <= filters.max_sanity_level)
        found[0] = False
        return found
