"""What vectors of held-out pairs of texts are worth: partners found, by kind and language."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from umair_jax.data.pair_split import TextPairs
from umair_jax.data.text_pairs import PERSPECTIVES
from umair_jax.training import retrieval

Vectors = Any  # [E, D], a dense array or a sparse matrix of scikit-learn's


def perspectives(pairs: TextPairs, part: str) -> dict[str, Bool[np.ndarray, " E"]]:
    """Which pairs of a part are of each perspective that occurs in it."""
    kind = pairs.perspective[pairs.parts[part]]
    each = {name: kind == i for i, name in enumerate(PERSPECTIVES)}
    return {name: among for name, among in each.items() if among.any()}


def ranks(pairs: TextPairs, part: str, first: Vectors, second: Vectors) -> Int[np.ndarray, " E"]:
    """The rank of each pair's second text among those of all pairs of its part and perspective."""
    rows = pairs.parts[part]
    rank = np.zeros(len(rows), np.int64)
    for among in perspectives(pairs, part).values():
        rank[among] = retrieval.ranks(
            first[among], pairs.a[rows][among], second[among], pairs.b[rows][among]
        )
    return rank


def by_perspective(
    pairs: TextPairs, part: str, rank: Int[np.ndarray, " E"]
) -> dict[str, dict[str, float]]:
    """Perspective -> recall_at_1, recall_at_10, mrr."""
    return {
        name: retrieval.summarise(rank[among]) for name, among in perspectives(pairs, part).items()
    }


def by_language(pairs: TextPairs, part: str, rank: Int[np.ndarray, " E"]) -> list[dict[str, Any]]:
    """A line for each pair of languages among the multilingual pairs, most frequent first."""
    rows = pairs.parts[part]
    multilingual = perspectives(pairs, part).get("multilingual")
    if multilingual is None:
        return []
    spoken = np.stack([pairs.lang_a[rows], pairs.lang_b[rows]], 1)
    found = []
    for one, other in np.unique(spoken[multilingual], axis=0):
        among = multilingual & (spoken == (one, other)).all(1)
        line = {"from": pairs.languages[one], "to": pairs.languages[other]}
        found.append(line | {"pairs": int(among.sum())} | retrieval.summarise(rank[among]))
    return sorted(found, key=lambda line: -line["pairs"])
