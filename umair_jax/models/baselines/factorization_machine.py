"""Factorisation machine: first order and the dot products of all pairs of fields."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import BaselineConfig, Fields, FirstOrder, output
from umair_jax.models.fm import fm_logit
from umair_jax.models.inputs import RankerInputs, RankerOutput


@dataclasses.dataclass(frozen=True)
class FactorizationMachineConfig(BaselineConfig):
    """Options of FactorizationMachine: none of its own."""

    def create(self, rngs: nnx.Rngs) -> FactorizationMachine:
        """The ranker."""
        return FactorizationMachine(self, rngs=rngs)


class FactorizationMachine(nnx.Module):
    """logit = first order + sum_{f<g} v_f . v_g.

    Source: Rendle, Factorization Machines (ICDM 2010), equation 1.
    """

    def __init__(self, cfg: FactorizationMachineConfig, *, rngs: nnx.Rngs):
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; `train`, `key` and `weight` change nothing."""
        return output(self.first_order(inputs) + fm_logit(self.fields(inputs)))
