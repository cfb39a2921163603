"""Whitening: a linear map after which the numbers of a vector are uncorrelated over a catalogue.

The numbers of an encoder's vectors move together: a few directions (how much ink there is, how dark
it is) hold most of the variance, and the cosine of two vectors is little more than those. After
whitening every direction counts the same.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float64

from umair_jax.models.initialise import Fixed

_TINY = 1e-8


class Whitening(nnx.Module):
    """y = (x - mean) W. Before it is fitted, W picks the first numbers and mean is 0.

    Only `fit` changes mean and W.
    """

    def __init__(self, inputs: int, outputs: int):
        """Makes a map that changes nothing but the width.

        Raises:
            ValueError: More outputs than inputs.
        """
        if not 1 <= outputs <= inputs:
            raise ValueError(f"whitening: got a width of {outputs}, expected 1 to {inputs}")
        self.mean = Fixed(jnp.zeros((inputs,), jnp.float32))
        self.kernel = Fixed(jnp.eye(inputs, outputs, dtype=jnp.float32))

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B K"]:
        """Whitened vectors, float32."""
        return (x.astype(jnp.float32) - self.mean[...]) @ self.kernel[...]

    def fit(self, moments: Moments, shrinkage: float) -> None:
        """Sets mean and W.

        Args:
            moments: Of the vectors of a catalogue.
            shrinkage: Share of the largest variance that is added to all, so that directions with
                next to none, which are noise, are not blown up.
        """
        mean, correlation, deviation = moments.mean, moments.correlation(), moments.deviation()
        variance, directions = np.linalg.eigh(correlation)
        width = self.kernel[...].shape[1]
        variance = variance[::-1][:width]
        power = np.maximum(variance, 0) + shrinkage * variance[0]
        # Directions that no vector leaves the mean along, as where there are fewer vectors than
        # numbers, say nothing.
        there = power > _TINY * max(variance[0], _TINY)
        scale = np.where(there, 1 / np.sqrt(np.where(there, power, 1)), 0)
        kernel = directions[:, ::-1][:, :width] * scale / deviation[:, None]
        # The sign of an eigenvector is arbitrary; this one does not depend on the library.
        kernel *= np.sign(kernel[np.abs(kernel).argmax(0), np.arange(width)])
        self.mean[...] = jnp.asarray(mean, jnp.float32)
        self.kernel[...] = jnp.asarray(kernel, jnp.float32)


class Moments:
    """Mean and covariance of vectors that come in batches, summed in float64."""

    def __init__(self, width: int):
        """Begins with nothing."""
        self._count = 0
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def add(self, vectors: Float[np.ndarray, "N D"]) -> None:
        """Takes in N vectors."""
        vectors = vectors.astype(np.float64)
        self._count += len(vectors)
        self._sum += vectors.sum(0)
        self._products += vectors.T @ vectors

    @property
    def mean(self) -> Float64[np.ndarray, " D"]:
        """Mean of all vectors so far.

        Raises:
            ValueError: There were fewer than two.
        """
        if self._count < 2:
            raise ValueError(f"whitening: got {self._count} vectors, expected two or more")
        return self._sum / self._count

    def _covariance(self) -> Float64[np.ndarray, "D D"]:
        mean = self.mean
        return self._products / self._count - np.outer(mean, mean)

    def deviation(self) -> Float64[np.ndarray, " D"]:
        """Standard deviation of every number; 1 where it never changes."""
        variance = np.diag(self._covariance())
        floor = _TINY * np.maximum(np.square(self.mean), _TINY)
        return np.sqrt(np.where(variance > floor, variance, 1.0))

    def correlation(self) -> Float64[np.ndarray, "D D"]:
        """Correlation matrix; zeros where a number never changes."""
        covariance, deviation = self._covariance(), self.deviation()
        return covariance / np.outer(deviation, deviation)
