"""Nearest neighbours by cosine, and what they have in common with the query."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

NEAREST = 10
KINDS = ("share", "any")
_CELLS = 1 << 24  # of the similarities that are in memory at a time, 64 MB


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked about the neighbours of a picture.

    Attributes:
        name: Key of the answer.
        label: [N] by picture: what neighbours should have in common with the query.
        group: [N] by picture: candidates of the query's own group are no neighbours. A number for
            each picture leaves out the picture alone.
        cluster: [N] by picture: answers within a cluster depend on each other, so intervals
            resample clusters.
        kind: "share" of the neighbours with the query's label, or whether "any" has it.
    """

    name: str
    label: Int[np.ndarray, " N"]
    group: Int[np.ndarray, " N"]
    cluster: Int[np.ndarray, " N"]
    kind: str

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind: got {self.kind!r}, expected one of {', '.join(KINDS)}.")

    def scores(
        self, rows: Int[np.ndarray, " Q"], neighbours: Int[np.ndarray, "Q K"]
    ) -> Float64[np.ndarray, " Q"]:
        """The answer for each query, in [0, 1].

        Args:
            rows: The queries.
            neighbours: Their neighbours, as rows.
        """
        same = self.label[neighbours] == self.label[rows][:, None]
        return same.mean(axis=1) if self.kind == "share" else same.any(axis=1).astype(np.float64)

    def chance(self, rows: Int[np.ndarray, " Q"], k: int = NEAREST) -> Float64[np.ndarray, " Q"]:
        """What `k` candidates drawn at random would score on average, exactly.

        Returns:
            By query; NaN where no candidate has the query's label, so that nothing can be right.

        Raises:
            ValueError: A query has fewer than `k` candidates.
        """
        pairs = np.stack([self.group, self.label], axis=1)
        _, pair, both = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
        right = _count(self.label)[rows] - both[pair.reshape(-1)][rows]
        allowed = len(self.group) - _count(self.group)[rows]
        _enough(int(allowed.min(initial=k)), k)
        if self.kind == "share":
            chance = right / allowed
        else:
            # Not one of k draws without replacement is right.
            drawn = np.arange(k)
            left = np.maximum(allowed[:, None] - right[:, None] - drawn, 0)
            chance = 1 - np.prod(left / (allowed[:, None] - drawn), axis=1)
        return np.where(right > 0, chance, np.nan)


def _count(codes: np.ndarray) -> np.ndarray:
    """How many entries have the same code as each one."""
    _, index, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return counts[index.reshape(-1)]


def _enough(candidates: int, k: int) -> None:
    if candidates < k:
        raise ValueError(
            f"neighbours: got a picture with {candidates} candidates, expected at least {k} for "
            f"its {k} nearest. Give more pictures."
        )


@dataclasses.dataclass(frozen=True)
class Answer:
    """A mean over queries.

    Attributes:
        value: In [0, 1].
        half_width: Half of its 95 % bootstrap interval over clusters.
        chance: What neighbours drawn at random would give.
        queries: Queries that counted: those for which some candidate is right.
    """

    value: float
    half_width: float
    chance: float
    queries: int


def ask(
    question: Question,
    rows: Int[np.ndarray, " Q"],
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "N D"],
    draws: int = 1000,
) -> Answer:
    """Answers a question about the 10 nearest neighbours.

    Args:
        question: What is asked.
        rows: Which pictures the queries show, or were made from.
        queries: Vectors of the queries.
        candidates: Vectors of all pictures.
        draws: Bootstrap draws behind the interval.

    Raises:
        ValueError: Too few candidates, or none that could be right.
    """
    chance = question.chance(rows)
    counts = ~np.isnan(chance)
    if not counts.any():
        raise ValueError(
            f"{question.name}: got no query for which any candidate is right; expected labels that "
            "pictures have in common."
        )
    rows, queries = rows[counts], queries[counts]
    scores = question.scores(rows, nearest(queries, candidates, question.group[rows],
                                           question.group))  # fmt: skip
    half = half_width(scores, question.cluster[rows], draws)
    return Answer(float(scores.mean()), half, float(chance[counts].mean()), len(rows))


def unit(vectors: Float[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Rows scaled to length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def nearest(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "N D"],
    query_group: Int[np.ndarray, " Q"],
    group: Int[np.ndarray, " N"],
    k: int = NEAREST,
    cells: int = _CELLS,
) -> Int[np.ndarray, "Q K"]:
    """The nearest candidates of other groups by cosine, the nearest first.

    Args:
        queries: Vectors of any length.
        candidates: Likewise.
        query_group: Group of each query.
        group: Group of each candidate.
        k: How many neighbours.
        cells: Similarities in memory at a time; the result does not depend on it.

    Raises:
        ValueError: A query has fewer than `k` candidates in other groups.
    """
    candidates = unit(candidates)
    block = max(1, cells // max(len(candidates), 1))
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), block):
        chosen = slice(start, start + block)
        similar = unit(queries[chosen]) @ candidates.T
        barred = query_group[chosen, None] == group
        _enough(len(group) - int(barred.sum(axis=1).max(initial=0)), k)
        similar[barred] = -np.inf
        best = np.argpartition(similar, -k, axis=1)[:, -k:]
        best.sort(axis=1)  # equal similarities stay in the order of the rows
        order = np.argsort(-np.take_along_axis(similar, best, axis=1), axis=1, kind="stable")
        found[chosen] = np.take_along_axis(best, order, axis=1)
    return found


def half_width(
    values: Float[np.ndarray, " Q"], cluster: Int[np.ndarray, " Q"], draws: int = 1000
) -> float:
    """Half of the 95 % interval of the mean, by resampling whole clusters; seeded."""
    if not draws:
        return float("nan")
    _, index = np.unique(cluster, return_inverse=True)
    total, count = np.bincount(index, weights=values), np.bincount(index)
    rng = np.random.default_rng(0)
    means = np.empty(draws)
    for draw in range(draws):
        picked = rng.integers(len(total), size=len(total))
        means[draw] = total[picked].sum() / count[picked].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(high - low) / 2
