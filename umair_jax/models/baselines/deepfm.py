"""DeepFM: a factorisation machine beside a multi-layer network, on the same embeddings."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import (
    DeepConfig,
    DeepLogit,
    Fields,
    FirstOrder,
    flat_parts,
    output,
)
from umair_jax.models.fm import fm_logit
from umair_jax.models.inputs import RankerInputs, RankerOutput


@dataclasses.dataclass(frozen=True)
class DeepFMConfig(DeepConfig):
    """Options of DeepFM: none of its own."""

    def create(self, rngs: nnx.Rngs) -> DeepFM:
        """The ranker."""
        return DeepFM(self, rngs=rngs)


class DeepFM(nnx.Module):
    """logit = first order + sum_{f<g} v_f . v_g + w . MLP([embeddings, vectors]).

    Source: Guo et al., DeepFM (IJCAI 2017), equations 1 to 4.
    """

    def __init__(self, cfg: DeepFMConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)
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
        return output(self.first_order(inputs) + fm_logit(self.fields(inputs)) + deep)
