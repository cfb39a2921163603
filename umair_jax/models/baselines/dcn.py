"""DCN and DCN-V2: a cross network beside a multi-layer network."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import DeepConfig, FirstOrder, flat_parts, output
from umair_jax.models.cross import CrossConfig, CrossNetwork
from umair_jax.models.inputs import RankerInputs, RankerOutput
from umair_jax.models.layers import MLP, Dense


@dataclasses.dataclass(frozen=True)
class DCNConfig(DeepConfig):
    """Options of DCN: those of the cross network.

    Attributes:
        cross: "vector" is DCN; "matrix", "low_rank" or "mixture" are DCN-V2.
        cross_layers: Its layers.
        cross_rank: Its rank, where it has one.
        cross_experts: Experts of the mixture.
    """

    cross: str = "vector"
    cross_layers: int = 2
    cross_rank: int = 32
    cross_experts: int = 4

    def __post_init__(self):
        super().__post_init__()
        _ = self.cross_config  # its own checks

    @property
    def cross_config(self) -> CrossConfig:
        """The options of the cross network."""
        return CrossConfig(
            self.cross, self.cross_layers, self.cross_rank, self.cross_experts, self.dtype
        )

    def create(self, rngs: nnx.Rngs) -> DCN:
        """The ranker."""
        return DCN(self, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class DCNV2Config(DCNConfig):
    """The same with the gated low-rank experts of DCN-V2."""

    cross: str = "mixture"


class DCN(nnx.Module):
    """logit = first order + w . [cross(x0), MLP(x0)], x0 = [embeddings, vectors].

    Source: Wang et al., Deep & Cross Network (2017), equation 5, and DCN V2 (WWW 2021), the
    parallel structure; the first order is the published UMAIR-FPS code's addition.
    """

    def __init__(self, cfg: DCNConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.cross = CrossNetwork(cfg.flat_width, cfg.cross_config, rngs=rngs)
        self.mlp = MLP(
            cfg.flat_width, cfg.hidden_widths, rngs=rngs, rate=cfg.dropout, dtype=cfg.dtype
        )
        self.out = Dense(cfg.flat_width + cfg.hidden_widths[-1], 1, rngs=rngs, use_bias=False)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        parts = flat_parts(self.cfg, inputs)
        crossed = self.cross(jnp.concatenate(parts, axis=-1))
        deep = self.mlp(*parts, train=train, key=key, weight=weight)
        return output(self.first_order(inputs) + self.out(crossed, deep)[:, 0])
