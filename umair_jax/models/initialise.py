"""Normal draws for initial weights, on the device or, faster for deep networks, on the host."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class HostDraws:
    """Stands in for `nnx.Rngs` where a module is built outside jit.

    XLA compiles one kernel for every differently shaped draw: twelve seconds for 101 layers on
    two cores. Numpy's counter-based generator takes a fraction of a second, with the same
    numbers on every platform. Pass `nnx.Rngs` under `jax.jit`.
    """

    def __init__(self, seed: int):
        self._generator = np.random.Generator(np.random.Philox(seed))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next standard normal draws, float32."""
        return self._generator.standard_normal(shape, np.float32)


Draws = nnx.Rngs | HostDraws


class Fixed(nnx.BatchStat):
    """Numbers that belong to the weights, but that neither gradients nor batches change."""


def normal(draws: Draws, shape: tuple[int, ...], scale: float) -> Float[Array, "..."]:
    """Normal draws of mean zero and standard deviation `scale`, float32."""
    if isinstance(draws, HostDraws):
        return jnp.asarray(scale * draws.normal(shape), jnp.float32)
    return scale * jax.random.normal(draws.params(), shape, jnp.float32)
