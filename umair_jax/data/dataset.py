"""A data set in memory: columns of items, users and interactions; pictures stay on disk.

Rows of items and users start at 1. Row 0 is a placeholder (empty text, -1) for whatever is unknown,
so that a row number is the index into every column.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, Int32, Int64

Texts = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Items:
    """Columns of the items, N+1 entries each, row 0 a placeholder.

    Attributes:
        illust_id: The source's ids, as text.
        title: Title, empty if missing; likewise artist, description, category.
        artist: Who made it.
        description: Free text.
        category: The source's own grouping.
        tags: Tags in the artist's order, without repetitions.
        width: Pixels of the original; this and the following numbers are -1 where missing.
        height: Pixels of the original.
        total_view: Views before the log begins.
        total_bookmarks: Bookmarks before the log begins.
        sanity_level: The site's rating.
        restrict: The site's visibility class.
        x_restrict: The site's age class.
        published: Unix seconds, below zero before 1970; -1 = unknown.
    """

    illust_id: Texts
    title: Texts
    artist: Texts
    description: Texts
    category: Texts
    tags: tuple[Texts, ...]
    width: Int64[np.ndarray, " N1"]
    height: Int64[np.ndarray, " N1"]
    total_view: Int64[np.ndarray, " N1"]
    total_bookmarks: Int64[np.ndarray, " N1"]
    sanity_level: Int64[np.ndarray, " N1"]
    restrict: Int64[np.ndarray, " N1"]
    x_restrict: Int64[np.ndarray, " N1"]
    published: Int64[np.ndarray, " N1"]

    def __len__(self) -> int:
        """N: the items without the placeholder."""
        return len(self.illust_id) - 1


@dataclasses.dataclass(frozen=True)
class Users:
    """Columns of the users, U+1 entries each, row 0 a placeholder.

    Attributes:
        user_id: The source's ids, as text.
        username: Names, empty if missing.
        true_mixture: Where users are simulated, what they are made of: the weights of content,
            style, artist and popularity. No model input.
    """

    user_id: Texts
    username: Texts
    true_mixture: Float32[np.ndarray, "U1 4"] | None = None

    def __len__(self) -> int:
        """U: the users without the placeholder."""
        return len(self.user_id) - 1


@dataclasses.dataclass(frozen=True)
class Interactions:
    """The log, sorted by (timestamp, user, item); I entries each.

    Attributes:
        user: Rows of users, 1 .. U.
        item: Rows of items, 1 .. N.
        timestamp: Unix seconds.
        label: 1 bookmarked, 0 seen (or sampled) and not bookmarked.
        true_probability: Where the log is simulated, the probability of label 1. No model input.
        sampled: Where negatives were sampled, which rows these are; None = there are none.
    """

    user: Int32[np.ndarray, " I"]
    item: Int32[np.ndarray, " I"]
    timestamp: Int64[np.ndarray, " I"]
    label: Int8[np.ndarray, " I"]
    true_probability: Float32[np.ndarray, " I"] | None = None
    sampled: Bool[np.ndarray, " I"] | None = None

    def __len__(self) -> int:
        """I: the number of interactions."""
        return len(self.label)

    def with_questions(
        self,
        user: int | Int32[np.ndarray, " K"],
        item: Int32[np.ndarray, " K"],
        moment: int,
    ) -> Interactions:
        """The log, and at its end K rows that ask about one second and change nothing else.

        Without the true probabilities, which the questions have none of.
        """
        asked = len(item)
        # Counted as sampled, they are no views themselves.
        none = np.zeros(len(self), bool)
        sampled = none if self.sampled is None else self.sampled
        return Interactions(
            user=np.append(self.user, np.full(asked, user, np.int32)),
            item=np.append(self.item, item),
            timestamp=np.append(self.timestamp, np.full(asked, moment, np.int64)),
            label=np.append(self.label, np.zeros(asked, np.int8)),
            sampled=np.append(sampled, np.ones(asked, bool)),
        )

    def take(self, rows: Int32[np.ndarray, " R"] | Int64[np.ndarray, " R"]) -> Interactions:
        """The interactions at these positions, in that order."""
        columns: dict[str, Any] = {
            field.name: None if column is None else column[rows]
            for field in dataclasses.fields(self)
            for column in [getattr(self, field.name)]
        }
        return Interactions(**columns)

    def ordered(self) -> Interactions:
        """Sorted by (timestamp, user, item); equal ones keep their order."""
        return self.take(np.lexsort((self.item, self.user, self.timestamp)))


@runtime_checkable
class Images(Protocol):
    """Encoded pictures by item row."""

    def read(self, row: int) -> bytes:
        """The encoded picture of an item; empty if it has none."""
        ...


class NoImages:
    """Stands in where no item has a picture."""

    def read(self, row: int) -> bytes:
        """Always empty."""
        return b""


@dataclasses.dataclass(frozen=True)
class CataloguePictures:
    """The pictures of a catalogue; small enough to be sent to other processes.

    Attributes:
        images: Where they come from.
        items: Number of items N.
    """

    images: Images
    items: int

    def image_bytes(self, row: int) -> bytes:
        """The encoded picture of an item row, 1 .. N; see Dataset.image_bytes."""
        if not 0 <= row <= self.items:
            raise ValueError(f"got the item row {row}; expected 1 to {self.items}")
        return self.images.read(row) if row else b""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        name: Name of the source.
        simulated: Whether the interactions are made up; say so wherever results are shown.
        items: The catalogue.
        users: The people.
        interactions: The log.
        fingerprint: Changes with any content: pictures, texts, numbers, log.
        catalogue_fingerprint: Changes with ids, texts and pictures only, hence not with the log.
        images: Where the pictures come from.
    """

    name: str
    simulated: bool
    items: Items
    users: Users
    interactions: Interactions
    fingerprint: str
    catalogue_fingerprint: str = ""
    images: Images = dataclasses.field(default_factory=NoImages, repr=False, compare=False)

    @property
    def pictures(self) -> CataloguePictures:
        """The pictures without the rest."""
        return CataloguePictures(self.images, len(self.items))

    def image_bytes(self, row: int) -> bytes:
        """The encoded picture of an item, in the format that the source had.

        Args:
            row: Item row, 1 .. N.

        Returns:
            The file's bytes; empty if the item has no usable picture, and for row 0.

        Raises:
            ValueError: There is no such row.
        """
        return self.pictures.image_bytes(row)


def probabilities(values: Float[np.ndarray, " I"]) -> Float32[np.ndarray, " I"]:
    """Checks true probabilities: float32 within 0 .. 1.

    Raises:
        ValueError: A value is outside, or not a number.
    """
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ValueError(
            f"true_probability, row {wrong[0] + 1}: got {values[wrong[0]]}; expected 0 to 1"
        )
    return values.astype(np.float32)
