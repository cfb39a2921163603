"""Drawings and what is known about them, as examples for an image encoder's pretext task."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from umair_jax.data.dataset import Dataset

PARTS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class ImageTagsConfig:
    """Which tags are predicted, and which drawings are held out.

    Attributes:
        min_count: A tag counts if so many training drawings have it.
        exclude: Tags that are left out.
        fractions: Shares of the drawings that train, validate and test; they add up to 1.
        split_seed: Which ones are held out.
        popularity: Column of the items -> ascending edges of its buckets, for soft-max heads:
            "total_bookmarks", "total_view", "sanity_level".
    """

    min_count: int = 5
    exclude: tuple[str, ...] = ()
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)
    split_seed: int = 0
    popularity: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.min_count < 1:
            raise ValueError(f"min_count: got {self.min_count}, expected 1 or more")
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"fractions: got {self.fractions}, expected three positive ones that add up to 1"
            )
        known = ("total_bookmarks", "total_view", "sanity_level")
        for name, edges in self.popularity.items():
            if name not in known:
                raise ValueError(f"popularity: got {name!r}, expected some of {known}")
            if not edges or list(edges) != sorted(set(edges)):
                raise ValueError(
                    f"popularity.{name}: got {edges}, expected ascending edges of buckets"
                )


@dataclasses.dataclass(frozen=True)
class ImageTags:
    """Labels of all drawings.

    Attributes:
        names: The tags, most frequent first, T of them.
        counts: How many training drawings have each.
        tags: For each item row (0 is a placeholder) its tags as places in `names`, padded with T.
        buckets: Popularity column -> bucket of each item row, -1 where it is not known.
        bucket_counts: Popularity column -> number of its buckets.
        rows: Part -> item rows with a picture, ascending.
        dropped_tags: Tags that are too rare or excluded.
        untagged: Training drawings without any of the tags; they count as having none.
    """

    names: tuple[str, ...]
    counts: Int32[np.ndarray, " T"]
    tags: Int32[np.ndarray, "N1 K"]
    buckets: dict[str, Int32[np.ndarray, " N1"]]
    bucket_counts: dict[str, int]
    rows: dict[str, Int32[np.ndarray, " _"]]
    dropped_tags: int
    untagged: int


def build(dataset: Dataset, config: ImageTagsConfig) -> ImageTags:
    """Splits the drawings, counts the tags of the training ones, and labels them all.

    Args:
        dataset: The data set; interactions and artists are not looked at.
        config: See ImageTagsConfig.

    Raises:
        ValueError: A part without drawings, or no tag that is frequent enough.
    """
    items = dataset.items
    pictured = [row for row in range(1, len(items) + 1) if dataset.image_bytes(row)]
    rows = _split(np.array(pictured, np.int32), config)
    counts = Counter(tag for row in rows["train"] for tag in items.tags[row])
    kept = [
        (tag, count)
        for tag, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if count >= config.min_count and tag not in config.exclude
    ]
    if not kept:
        raise ValueError(
            f"tags: none is on {config.min_count} training drawings or more; lower min_count "
            f"(the most frequent is on {max(counts.values(), default=0)})"
        )
    names = tuple(tag for tag, _ in kept)
    place = {tag: i for i, tag in enumerate(names)}
    lists = [[place[tag] for tag in tags if tag in place] for tags in items.tags]
    edges = {name: np.asarray(edges) for name, edges in config.popularity.items()}
    values = {name: np.asarray(getattr(items, name)) for name in edges}
    return ImageTags(
        names=names,
        counts=np.array([count for _, count in kept], np.int32),
        tags=_padded(lists, len(names)),
        buckets={
            name: np.where(
                values[name] < 0, -1, np.searchsorted(edges[name], values[name], side="right")
            ).astype(np.int32)
            for name in edges
        },
        bucket_counts={name: len(e) + 1 for name, e in edges.items()},
        rows=rows,
        dropped_tags=len(counts) - len(names),
        untagged=sum(not lists[row] for row in rows["train"]),
    )


def _split(
    rows: Int32[np.ndarray, " P"], config: ImageTagsConfig
) -> dict[str, Int32[np.ndarray, " _"]]:
    order = np.random.Generator(np.random.Philox(config.split_seed)).permutation(rows)
    edges = np.round(np.cumsum(config.fractions[:2]) * len(rows)).astype(int)
    parts = dict(zip(PARTS, np.split(order, edges), strict=True))
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise ValueError(
            f"fractions {config.fractions} of {len(rows)} drawings with a picture leave "
            f"{' and '.join(empty)} empty; use more drawings or other fractions"
        )
    return {name: np.sort(part) for name, part in parts.items()}


def _padded(lists: Sequence[Sequence[int]], fill: int) -> Int32[np.ndarray, "N1 K"]:
    table = np.full((len(lists), max(1, *map(len, lists))), fill, np.int32)
    for row, values in enumerate(lists):
        table[row, : len(values)] = values
    return table
