"""How interactions are split, and what of their past the ranker may read."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int8

from umair_jax.data import splits
from umair_jax.data.dataset import Interactions
from umair_jax.data.interests import Histories, build_histories
from umair_jax.data.stored_vectors import DTYPES

VECTORS = ("content", "style", "text")
WINDOWS = ("long_term_", "short_term_")
HISTORY = "history"
DEVICE, HOST = "device", "host"
PLACES = (DEVICE, HOST)


@dataclasses.dataclass(frozen=True)
class RankingConfig:
    """How interactions are split and what is known at each of them.

    Attributes:
        split: Kind of the split: temporal, leave_last_out, cold_item or cold_user.
        fractions: Shares of train, valid and test.
        split_seed: Which items or users a cold split holds out.
        long_max: Bookmarks in the long-term window, at most.
        short_max: Bookmarks in the short-term window, at most.
        long_days: Days that the long-term window reaches back; None = any.
        short_days: Days that the short-term window reaches back; None = any.
        log_style: Take the logarithm of style vectors: maxima of Gram matrices are positive and
            span orders of magnitude.
        standardise: Give every channel of the items' vectors mean 0 and deviation 1 over the
            catalogue. Without, vectors go in as the encoders made them, as in the published code.
        zero: Vectors ("content", "style", "text") that are replaced by zeros, in the items and
            in what is derived from them, to measure what they are worth.
        history: Bookmarks of a state, the most recent ones of the long-term window, that are
            kept as item rows; 0 = none, for the rankers that do not read them.
        vector_dtype: "float32", "bfloat16" or "int8" (with a scale for each vector): of the
            vectors that batches are looked up in.
        vectors_on: Where those are: "device", or "host", for catalogues that do not fit on the
            devices: in memory-mapped files, from which each batch takes what it needs along.
    """

    split: str = "temporal"
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int = 0
    long_max: int = 50
    short_max: int = 8
    long_days: float | None = None
    short_days: float | None = None
    log_style: bool = False
    standardise: bool = True
    zero: tuple[str, ...] = ()
    history: int = 0
    vector_dtype: str = "float32"
    vectors_on: str = "device"

    def __post_init__(self):
        splits.check(self.split, self.fractions)
        for name in self.zero:
            if name not in VECTORS:
                raise ValueError(f"zero: got {name!r}, expected some of {', '.join(VECTORS)}")
        if self.history < 0:
            raise ValueError(f"history: got {self.history}, expected 0 or more bookmarks")
        if self.vector_dtype not in DTYPES:
            raise ValueError(
                f"vector_dtype: got {self.vector_dtype!r}, expected one of {', '.join(DTYPES)}"
            )
        if self.vectors_on not in PLACES:
            raise ValueError(
                f"vectors_on: got {self.vectors_on!r}, expected one of {', '.join(PLACES)}"
            )
        if self.vectors_on == HOST and self.history:
            raise ValueError(
                f"vectors_on: got {HOST!r} with a history of {self.history}; expected 'device': "
                "the items of a history are looked up on the devices"
            )

    def histories(self, log: Interactions, split: Int8[np.ndarray, " I"]) -> Histories:
        """What each interaction of a log may know of its user, see build_histories."""
        return build_histories(
            log,
            split,
            self.split,
            long_max=self.long_max,
            short_max=self.short_max,
            long_days=self.long_days,
            short_days=self.short_days,
        )
