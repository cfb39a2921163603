"""The options of the schema that a config may set, on top of the paper's fields."""

from __future__ import annotations

import dataclasses
from typing import Any

from umair_jax.data.fields import Field, Kind, Side
from umair_jax.data.schema import Schema


@dataclasses.dataclass(frozen=True)
class SchemaConfig:
    """How the ranker's fields differ from the paper's.

    Attributes:
        embedding_width: Width of every sparse embedding.
        sizes: Rows by field or shared table, e.g. {"illust_id": 65_536}.
        boundaries: Bucket edges by field.
        bookmark_rate: Edges of a further item field, the share of earlier viewers who bookmarked;
            none = without it, as in the paper.
        categories: Rows of a further item field, the item's category, hashed; 0 = without it, as
            in the paper.
        interest_vectors: Whose means over a user's long- and short-term bookmarks are inputs:
            "text" (the paper), "content", "style".
        drop: Fields left out, for ablations.
    """

    embedding_width: int = 8
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    boundaries: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    bookmark_rate: tuple[float, ...] = ()
    categories: int = 0
    interest_vectors: tuple[str, ...] = ("text",)
    drop: tuple[str, ...] = ()

    def schema(self) -> Schema:
        """The fields.

        Raises:
            ValueError: An unknown field, or values that do not fit it.
        """
        schema = dataclasses.replace(Schema.paper(), embedding_width=self.embedding_width)
        if self.bookmark_rate:
            edges = tuple(self.bookmark_rate)
            rate = Field("bookmark_rate", Kind.BUCKET, Side.ITEM, boundaries=edges,
                         column="bookmark_rate")  # fmt: skip
            schema = schema.add(rate)
        if self.categories:
            category = Field("category", Kind.HASH, Side.ITEM, size=self.categories,
                             column="category")  # fmt: skip
            schema = schema.add(category)
        changes: dict[str, dict[str, Any]] = {
            name: {"size": size} for name, size in self.sizes.items()
        }
        for name, edges in self.boundaries.items():
            changes[name] = {"boundaries": tuple(edges)}
        return self._with_interests(schema).replace(**changes).without(*self.drop)

    def _with_interests(self, schema: Schema) -> Schema:
        for vector in self.interest_vectors:
            if vector not in ("text", "content", "style"):
                raise ValueError(
                    f"interest_vectors: got {vector!r}; expected some of text, content, style"
                )
        windows = ("long", "short")
        if "text" not in self.interest_vectors:
            schema = schema.without(*(f"{w}_term_interest_tags_feature" for w in windows))
        more = [vector for vector in self.interest_vectors if vector != "text"]
        # The width is the bank's; see data/ranking_vectors.py.
        return schema.add(
            *(
                Field(f"{w}_term_interest_{vector}", Kind.DENSE, Side.USER, width=1,
                      column=f"{w}_term_{vector}")
                for vector in more
                for w in windows
            )
        )  # fmt: skip
