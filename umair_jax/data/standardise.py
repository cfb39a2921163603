"""Channels of vectors on one scale: one rule for the ranker and for what measures vectors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

SMALLEST_GRAM = 1e-6


def log_gram(style: Float[np.ndarray, "N S"]) -> Float[np.ndarray, "N S"]:
    """Logarithms of style vectors: maxima of Gram matrices span orders of magnitude."""
    return np.log(np.maximum(style, SMALLEST_GRAM))


def moments(
    vectors: Float[np.ndarray, "N D"],
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Mean and deviation of every channel; 1 as deviation of those that are all but constant.

    Subtract the one and divide by the other, and channels have mean 0 and deviation 1. A channel
    that hardly varies would be blown up to noise.
    """
    exact = vectors.astype(np.float64)
    deviation = exact.std(axis=0)
    varies = deviation > 1e-6 * np.abs(exact).max(initial=1e-30)
    return exact.mean(axis=0), np.where(varies, deviation, 1)
