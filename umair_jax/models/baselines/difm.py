"""DIFM: a factorisation machine whose fields count by what the rest of the example is."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.autoint import InteractingLayer
from umair_jax.models.baselines.features import (
    DeepConfig,
    Fields,
    FirstOrder,
    flat_parts,
    output,
)
from umair_jax.models.fm import fm_logit
from umair_jax.models.inputs import RankerInputs, RankerOutput
from umair_jax.models.layers import MLP, Dense


@dataclasses.dataclass(frozen=True)
class DIFMConfig(DeepConfig):
    """Options of DIFM.

    Attributes:
        heads: Heads of the vector-wise attention.
        head_width: Width of a head.
        weighted_linear: Whether m_f weighs w_f too, as in the paper; not so in the published
            UMAIR-FPS code.
    """

    heads: int = 8
    head_width: int = 8
    weighted_linear: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("heads", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"difm {name}: got {getattr(self, name)}, expected at least 1")

    def create(self, rngs: nnx.Rngs) -> DIFM:
        """The ranker."""
        return DIFM(self, rngs=rngs)


class DIFM(nnx.Module):
    """logit = sum_f m_f w_f + sum_{f<g} (m_f v_f) . (m_g v_g); m = W attention + W' MLP.

    Source: Lu et al., A Dual Input-aware Factorization Machine (IJCAI 2020), equations 2, 13, 14.
    The linear weights of vectors are not re-weighted.
    """

    def __init__(self, cfg: DIFMConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)
        self.attention = InteractingLayer(
            cfg.embedding_width, cfg.heads, cfg.head_width, True, rngs=rngs
        )
        attended = cfg.all_fields * cfg.heads * cfg.head_width
        self.vector_wise = Dense(attended, cfg.all_fields, rngs=rngs, use_bias=False)
        self.mlp = MLP(
            cfg.flat_width, cfg.hidden_widths, rngs=rngs, rate=cfg.dropout, dtype=cfg.dtype
        )
        self.bit_wise = Dense(cfg.hidden_widths[-1], cfg.all_fields, rngs=rngs, use_bias=False)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        x = self.fields(inputs)
        attended = self.attention(x).reshape(x.shape[0], -1)
        deep = self.mlp(*flat_parts(self.cfg, inputs), train=train, key=key, weight=weight)
        factor = self.vector_wise(attended) + self.bit_wise(deep)
        if self.cfg.weighted_linear and inputs.wide is not None:
            inputs = inputs._replace(wide=inputs.wide * factor[:, : self.cfg.fields])
        return output(self.first_order(inputs) + fm_logit(x * factor[..., None]))
