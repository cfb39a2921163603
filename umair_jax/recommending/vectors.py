"""The catalogue's vectors at length 1: what is like what, by content, by style or by text."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.ranking_config import VECTORS


class UnitVectors:
    """Vectors of N drawings, of length 1, or 0 where there is none.

    Attributes:
        by: Arrays [N+1, D] by name: content, style, text.
    """

    def __init__(self, bank: FeatureBank) -> None:
        """Scales the vectors of a bank."""
        self.by = {name: unit(getattr(bank, name)) for name in VECTORS}

    def check(self, name: str) -> str:
        """The name, if there are such vectors.

        Raises:
            ValueError: There are none.
        """
        if name not in self.by:
            raise ValueError(f"by: got {name!r}; expected one of {', '.join(self.by)}")
        return name

    def cosines(
        self, name: str, rows: Int[np.ndarray, " K"], others: Int[np.ndarray, " L"]
    ) -> Float32[np.ndarray, "K L"]:
        """Cosine of every pair; 0 where one of them has no vector."""
        return self.by[name][rows] @ self.by[name][others].T

    def taste(self, name: str, liked: Int[np.ndarray, " L"]) -> Float32[np.ndarray, " N1"]:
        """How near every drawing is to the mean direction of some: a cosine, or 0."""
        return self.by[name] @ unit(self.by[name][liked].sum(axis=0))

    def nearest(
        self,
        name: str,
        vector: Float[np.ndarray, " D"],
        allowed: Bool[np.ndarray, " N1"],
        k: int,
    ) -> tuple[Int[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
        """The rows nearest to a vector with their cosines, the nearest first.

        Args:
            name: Which vectors.
            vector: Of any length.
            allowed: Rows to choose from; those without a vector are left out.
            k: How many, at most; none where the vector is 0.
        """
        vectors = self.by[self.check(name)]
        rows = np.flatnonzero(allowed & vectors.any(axis=1) & np.any(vector))
        cosine = vectors[rows] @ unit(np.asarray(vector, np.float32))
        order = np.argsort(-cosine, kind="stable")[:k]
        return rows[order], cosine[order]


def unit(vectors: Float[np.ndarray, "*N D"]) -> Float32[np.ndarray, "*N D"]:
    """Vectors at length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
