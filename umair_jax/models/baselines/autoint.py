"""AutoInt: self-attention between fields, beside a multi-layer network."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
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
from umair_jax.models.inputs import RankerInputs, RankerOutput
from umair_jax.models.layers import Dense


@dataclasses.dataclass(frozen=True)
class AutoIntConfig(DeepConfig):
    """Options of AutoInt.

    Attributes:
        attention_layers: Interacting layers.
        heads: Heads of each.
        head_width: Width of a head.
        scaling: Whether scores are divided by the root of the head's width.
    """

    attention_layers: int = 3
    heads: int = 2
    head_width: int = 8
    scaling: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("attention_layers", "heads", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"autoint {name}: got {getattr(self, name)}, expected at least 1")

    def create(self, rngs: nnx.Rngs) -> AutoInt:
        """The ranker."""
        return AutoInt(self, rngs=rngs)


class InteractingLayer(nnx.Module):
    """relu(soft-max(Q K^T) V + X W_res) over the fields of one example.

    Source: Song et al., AutoInt (CIKM 2019), equations 5 to 8; they do not divide by the root of
    the head's width. Heads are contiguous blocks of columns.
    """

    def __init__(self, inputs: int, heads: int, width: int, scaling: bool, *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_uniform()
        shape = (inputs, heads * width)
        self.query, self.key, self.value, self.residual = (
            nnx.Param(init(rngs.params(), shape, jnp.float32)) for _ in range(4)
        )
        self.heads, self.width = heads, width
        self.scale = width**-0.5 if scaling else 1.0

    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B F H"]:
        """The fields after they looked at each other."""
        batch, fields, _ = x.shape

        def split(kernel: nnx.Param) -> jax.Array:
            y = (x @ kernel[...]).reshape(batch, fields, self.heads, self.width)
            return y.transpose(0, 2, 1, 3)

        query, key, value = split(self.query), split(self.key), split(self.value)
        scores = jnp.einsum("bhid,bhjd->bhij", query, key) * self.scale
        y = jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(scores, axis=-1), value)
        y = y.transpose(0, 2, 1, 3).reshape(batch, fields, -1)
        return jax.nn.relu(y + x @ self.residual[...])


class AutoInt(nnx.Module):
    """logit = first order + w . attention(fields) + w . MLP([embeddings, vectors]).

    Source: Song et al., AutoInt (CIKM 2019), its AutoInt+ with the network beside the attention.
    """

    def __init__(self, cfg: AutoIntConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)
        self.attention = nnx.Dict()
        width = cfg.embedding_width
        for index in range(cfg.attention_layers):
            self.attention[f"layer_{index}"] = InteractingLayer(
                width, cfg.heads, cfg.head_width, cfg.scaling, rngs=rngs
            )
            width = cfg.heads * cfg.head_width
        self.out = Dense(cfg.all_fields * width, 1, rngs=rngs, use_bias=False)
        self.deep = DeepLogit(cfg.flat_width, cfg, rngs=rngs)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        x = self.fields(inputs)
        for index in range(len(self.attention)):
            x = self.attention[f"layer_{index}"](x)
        attended = self.out(x.reshape(x.shape[0], -1))[:, 0]
        deep = self.deep(*flat_parts(self.cfg, inputs), train=train, key=key, weight=weight)
        return output(self.first_order(inputs) + attended + deep)
