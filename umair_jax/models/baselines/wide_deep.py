"""Wide & Deep: first order beside a multi-layer network."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import (
    DeepConfig,
    DeepLogit,
    FirstOrder,
    flat_parts,
    output,
)
from umair_jax.models.inputs import RankerInputs, RankerOutput


@dataclasses.dataclass(frozen=True)
class WideDeepConfig(DeepConfig):
    """Options of WideDeep: none of its own."""

    def create(self, rngs: nnx.Rngs) -> WideDeep:
        """The ranker."""
        return WideDeep(self, rngs=rngs)


class WideDeep(nnx.Module):
    """logit = first order + w . MLP([embeddings, vectors]).

    Source: Cheng et al., Wide & Deep Learning for Recommender Systems (2016), equation 3, without
    hand-made crosses in the wide part.
    """

    def __init__(self, cfg: WideDeepConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.deep = DeepLogit(cfg.flat_width, cfg, rngs=rngs)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        deep = self.deep(*flat_parts(self.cfg, inputs), train=train, key=key, weight=weight)
        return output(self.first_order(inputs) + deep)
