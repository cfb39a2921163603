"""How well texts find their partners: recall, mean reciprocal rank, alignment and uniformity."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

_AT_ONCE = 1024  # queries whose similarities are in memory


def ranks(
    query: Any,
    query_id: Int[np.ndarray, " E"],
    target: Any,
    target_id: Int[np.ndarray, " E"],
) -> Int[np.ndarray, " E"]:
    """The rank of each query's partner among all different targets.

    A query that has several partners is asked about each of them, the others left out. Where
    similarities are equal, the others come first.

    Args:
        query: Vectors [E, D] of length 1: an array, or a sparse matrix of SciPy's.
        query_id: Which text each is.
        target: Vectors of their partners, likewise.
        target_id: Likewise.

    Returns:
        1 = nothing is nearer than the partner. Where a vector is NaN nothing is known to be
        farther: the last place.
    """
    ids, first, place = np.unique(target_id, return_index=True, return_inverse=True)
    candidates = target[first]
    partners: dict[int, list[int]] = {}
    for asks, right in zip(query_id.tolist(), place.tolist(), strict=True):
        partners.setdefault(asks, []).append(right)
    itself = {text: i for i, text in enumerate(ids.tolist())}
    found = np.zeros(len(query_id), np.int64)
    for start in range(0, len(query_id), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        similarity = query[rows] @ candidates.T
        if not isinstance(similarity, np.ndarray):
            similarity = similarity.toarray()
        own = similarity[np.arange(len(similarity)), place[rows]].copy()
        for i, asks in enumerate(query_id[rows].tolist()):
            similarity[i, partners[asks]] = -np.inf
            if asks in itself:
                similarity[i, itself[asks]] = -np.inf
        found[rows] = 1 + (~(similarity < own[:, None])).sum(1)
    return found


def summarise(rank: Int[np.ndarray, " E"]) -> dict[str, float]:
    """Recall at 1 and 10 and mean reciprocal rank."""
    return {
        "recall_at_1": float((rank <= 1).mean()),
        "recall_at_10": float((rank <= 10).mean()),
        "mrr": float((1 / rank).mean()),
    }


def alignment(one: Float[np.ndarray, "E D"], other: Float[np.ndarray, "E D"]) -> float:
    """Mean squared distance of partners, 0 (one vector) to 4 (opposite).

    Source: Wang and Isola 2020, Understanding Contrastive Representation Learning, alpha = 2.
    """
    return float(np.square(one - other).sum(1).mean())


def uniformity(vectors: Float[np.ndarray, "E D"], most: int = 4096, seed: int = 0) -> float:
    """Logarithm of the mean of exp(-2 d^2) over pairs of different vectors; lower is more even.

    Args:
        vectors: Of length 1.
        most: A sample of so many vectors is taken of more.
        seed: Of the sample.

    Source: Wang and Isola 2020, t = 2.
    """
    if len(vectors) > most:
        generator = np.random.Generator(np.random.Philox(seed))
        vectors = vectors[generator.permutation(len(vectors))[:most]]
    distance = 2 - 2 * vectors @ vectors.T
    apart = ~np.eye(len(vectors), dtype=bool)
    return float(np.log(np.exp(-2 * distance[apart]).mean()))
