"""Why a drawing is shown: the bookmarked drawing that it is nearest to, and in which respect."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from umair_jax.recommending.vectors import UnitVectors

# Nobody looks further back for a likeness, and the cost stays the same.
_RECENT = 200


@dataclasses.dataclass(frozen=True)
class Because:
    """A likeness.

    Attributes:
        liked: Row of the bookmarked drawing.
        by: The vector in which the two are most alike: content, style or text.
        cosine: How much, in that vector.
    """

    liked: int
    by: str
    cosine: float


def nearest_liked(
    vectors: UnitVectors,
    items: Int[np.ndarray, " K"],
    liked: Int[np.ndarray, " L"],
    weights: Mapping[str, Float[np.ndarray, " K"]],
) -> list[Because | None]:
    """For every drawing the bookmarked one that is nearest to it.

    Nearness is the sum of the three cosines, each times the weight that the ranker gives the
    modality for this drawing; the respect named is the largest summand.

    Args:
        vectors: Of the catalogue.
        items: Rows of the drawings.
        liked: Rows of the bookmarked ones, the oldest first; the last 200 are looked at.
        weights: Of the modalities, by name; those that are missing count as equal parts.

    Returns:
        By drawing; None where nothing is bookmarked or nothing is alike at all.
    """
    liked = liked[-_RECENT:]
    if not len(liked):
        return [None] * len(items)
    equal = np.full(len(items), 1 / len(vectors.by), np.float32)
    parts = np.stack(
        [weights.get(name, equal)[:, None] * vectors.cosines(name, items, liked)
         for name in vectors.by]
    )  # fmt: skip
    total = parts.sum(axis=0)
    found: list[Because | None] = []
    for k, best in enumerate(total.argmax(axis=1)):
        if total[k, best] <= 0:
            found.append(None)
            continue
        by = list(vectors.by)[int(parts[:, k, best].argmax())]
        cosine = vectors.cosines(by, items[k : k + 1], liked[best : best + 1])
        found.append(Because(int(liked[best]), by, float(cosine[0, 0])))
    return found
