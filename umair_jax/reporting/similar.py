"""A handful of drawings with their nearest by style and by content."""

from __future__ import annotations

import dataclasses

import numpy as np

from umair_jax.data.feature_bank import FeatureBank
from umair_jax.probes.neighbours import nearest

QUERIES, NEAREST = 6, 5
VECTORS = ("style", "content")


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """A drawing and what is near it.

    Attributes:
        item: Row of the drawing.
        nearest: Rows of its neighbours by vector, "style" and "content"; the nearest first.
    """

    item: int
    nearest: dict[str, tuple[int, ...]]


def neighbours(
    bank: FeatureBank, queries: int = QUERIES, k: int = NEAREST, seed: int = 0
) -> tuple[Neighbours, ...]:
    """Draws drawings with pictures and finds their nearest by cosine.

    Args:
        bank: Vectors of the catalogue.
        queries: How many drawings.
        k: How many neighbours of each.
        seed: Chooses the drawings.

    Returns:
        The drawings, ascending; none where fewer than k + 1 have a picture.
    """
    rows = np.flatnonzero(bank.has_image)
    if len(rows) <= k:
        return ()
    chosen = np.random.default_rng(seed).choice(len(rows), min(queries, len(rows)), replace=False)
    chosen.sort()
    each = np.arange(len(rows))
    found = {}
    for name in VECTORS:
        vectors = getattr(bank, name)[rows]
        found[name] = rows[nearest(vectors[chosen], vectors, each[chosen], each, k)]
    return tuple(
        Neighbours(int(rows[q]), {name: tuple(found[name][i].tolist()) for name in VECTORS})
        for i, q in enumerate(chosen)
    )
