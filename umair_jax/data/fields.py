"""One input of the ranker: its name, kind, side, table and column."""

from __future__ import annotations

import dataclasses
import enum
import itertools

from umair_jax.data import hashing

LONG_TAGS, SHORT_TAGS = "long_term_tags", "short_term_tags"

ITEM_COLUMNS = frozenset(
    [
        "illust_id",
        "title",
        "artist",
        "description",
        "category",
        "tags",
        "width",
        "height",
        "total_view",
        "total_bookmarks",
        "sanity_level",
        "restrict",
        "x_restrict",
        "published",
    ]
)
USER_COLUMNS = frozenset(("user_id", "username"))


class Kind(enum.StrEnum):
    """How the values of a field become rows or vectors."""

    CATEGORY = "category"
    BUCKET = "bucket"
    HASH = "hash"
    DENSE = "dense"


class Side(enum.StrEnum):
    """Whom a field describes."""

    ITEM = "item"
    USER = "user"


@dataclasses.dataclass(frozen=True)
class Field:
    """One input of the ranker.

    Attributes:
        name: Unique name.
        kind: How values are encoded.
        side: Item or user.
        table: Embedding table; fields with the same table share its rows. Empty: a table of its
            own, called as the field. Dense fields have none.
        size: Rows of the table without the unknown one. Follows from boundaries for buckets.
        boundaries: Ascending edges of the buckets; a value on an edge belongs to the upper bucket.
        width: Length of the vector of a dense field, 0 for the others.
        column: Where the value stands: a column of the items or users; "long_term_tags" or
            "short_term_tags" for interest tags; "content", "style" or "text" for an item's vector,
            with "long_term_" or "short_term_" before it for the mean over a user's bookmarks;
            another name for numbers counted per interaction (see data/ranking.py).
        position: Which element of a column of lists; -1 = the column holds single values.
    """

    name: str
    kind: Kind
    side: Side
    table: str = ""
    size: int = 0
    boundaries: tuple[int | float, ...] = ()
    width: int = 0
    column: str = ""
    position: int = -1

    def __post_init__(self):
        refuse = self._refuse
        if not self.name:
            refuse("an empty name", "a name")
        if self.kind is Kind.DENSE:
            if self.width < 1 or self.size or self.boundaries or self.table:
                refuse(f"{self}", "a dense field: width >= 1 and no table, size or boundaries")
            return
        if self.width:
            refuse(f"width {self.width}", "0: every sparse field has the schema's embedding width")
        if self.kind is Kind.BUCKET:
            edges = self.boundaries
            if not edges or any(a >= b for a, b in itertools.pairwise(edges)):
                refuse(f"boundaries {edges}", "one or more numbers, strictly ascending")
            if self.size not in (0, len(edges) + 1):
                refuse(f"size {self.size}", f"{len(edges) + 1}, one more than the boundaries")
            object.__setattr__(self, "size", len(edges) + 1)
        elif self.boundaries:
            refuse(f"boundaries {self.boundaries}", f"none, since the kind is {self.kind.value}")
        if not 1 <= self.size <= hashing.MAX_SIZE:
            refuse(f"size {self.size}", f"1 to {hashing.MAX_SIZE}")
        object.__setattr__(self, "table", self.table or self.name)

    def _refuse(self, got: str, expected: str) -> None:
        raise ValueError(f"field {self.name!r}: got {got}; expected {expected}")

    @property
    def static(self) -> bool:
        """Whether the value belongs to the item or user itself, not to a moment in time."""
        return self.column in (ITEM_COLUMNS if self.side is Side.ITEM else USER_COLUMNS)
