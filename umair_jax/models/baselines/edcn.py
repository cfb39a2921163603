"""EDCN: cross and deep layers that exchange what they found after every layer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import BaselineConfig, Fields, FirstOrder, output
from umair_jax.models.cross import CrossConfig, MatrixCross, VectorCross
from umair_jax.models.inputs import RankerInputs, RankerOutput
from umair_jax.models.layers import Block, Dense, check_choice, split_key

BRIDGES = ("pointwise_addition", "hadamard_product", "concatenation", "attention_pooling")
CROSSES = {"vector": VectorCross, "matrix": MatrixCross}


@dataclasses.dataclass(frozen=True)
class EDCNConfig(BaselineConfig):
    """Options of EDCN.

    Attributes:
        cross: "vector" or "matrix".
        layers: Layers of both sides.
        bridge: How the two sides exchange: one of BRIDGES.
        temperature: Of the soft-max of the field gates.
        dropout: Rate after each deep layer.
    """

    cross: str = "vector"
    layers: int = 3
    bridge: str = "hadamard_product"
    temperature: float = 1.0
    dropout: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_choice("edcn cross", self.cross, tuple(CROSSES))
        check_choice("edcn bridge", self.bridge, BRIDGES)
        if self.layers < 1:
            raise ValueError(f"edcn layers: got {self.layers}, expected at least 1")
        if not self.temperature > 0.0:
            raise ValueError(f"edcn temperature: got {self.temperature}, expected above 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"edcn dropout: got {self.dropout}, expected 0 <= rate < 1")

    def create(self, rngs: nnx.Rngs) -> EDCN:
        """The ranker."""
        return EDCN(self, rngs=rngs)


class Regulation(nnx.Module):
    """Gates the fields: x_f soft-max(g / temperature)_f, flattened.

    Source: Chen et al., Enhancing Explicit and Implicit Feature Interactions (KDD 2021), eq. 9.
    """

    def __init__(self, fields: int, temperature: float):
        self.gate = nnx.Param(jnp.ones((fields,), jnp.float32))
        self.temperature = temperature

    def __call__(self, x: Float[Array, "B F D"]) -> Float[Array, "B _"]:
        """The gated fields [B, F * D]."""
        share = jax.nn.softmax(self.gate[...] / self.temperature)
        return (x * share[:, None]).reshape(x.shape[0], -1)


class Bridge(nnx.Module):
    """Merges the two sides of a layer: sum, product, dense layer, or weighted sum.

    Source: ibid., section 4.1. The attention weights a side's numbers by soft-max(W2 relu(W1 x)),
    one distribution over the D numbers of each side.
    """

    def __init__(self, width: int, kind: str, *, rngs: nnx.Rngs):
        self.kind = kind
        if kind == "concatenation":
            self.dense = Dense(2 * width, width, rngs=rngs)
        if kind == "attention_pooling":
            self.sides = nnx.Dict()
            for side in ("cross", "deep"):
                hidden, out = (Dense(width, width, rngs=rngs) for _ in range(2))
                self.sides[side] = nnx.Dict(hidden=hidden, out=out)

    def __call__(
        self, cross: Float[Array, "B D"], deep: Float[Array, "B D"]
    ) -> Float[Array, "B D"]:
        """The merged row."""
        if self.kind == "pointwise_addition":
            return cross + deep
        if self.kind == "hadamard_product":
            return cross * deep
        if self.kind == "concatenation":
            return jax.nn.relu(self.dense(cross, deep))
        return self._weighted("cross", cross) + self._weighted("deep", deep)

    def _weighted(self, side: str, x: jax.Array) -> jax.Array:
        layers = self.sides[side]
        hidden = jax.nn.relu(layers["hidden"](x))
        return jax.nn.softmax(layers["out"](hidden), axis=-1) * x


class EDCN(nnx.Module):
    """logit = first order + w . [cross, deep, bridge] of the last layer.

    Source: ibid., figure 3. Layer l crosses with the gated fields of the first layer, as DCN does.
    """

    def __init__(self, cfg: EDCNConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)
        width = cfg.all_fields * cfg.embedding_width
        crosses = CrossConfig(cfg.cross, cfg.layers, dtype=cfg.dtype)
        self.layers = nnx.Dict()
        for index in range(cfg.layers):
            self.layers[f"layer_{index}"] = nnx.Dict(
                cross_gate=Regulation(cfg.all_fields, cfg.temperature),
                deep_gate=Regulation(cfg.all_fields, cfg.temperature),
                cross=CROSSES[cfg.cross](width, crosses, rngs=rngs),
                deep=Block(width, width, rngs=rngs, rate=cfg.dropout, dtype=cfg.dtype),
                bridge=Bridge(width, cfg.bridge, rngs=rngs),
            )
        self.out = Dense(3 * width, 1, rngs=rngs, use_bias=False)

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; see `Ranker`."""
        rows = self.fields(inputs)
        first, cross, deep, bridge = None, rows, rows, rows
        for index, part in enumerate(split_key(key, self.cfg.layers)):
            layer = self.layers[f"layer_{index}"]
            x = layer["cross_gate"](bridge.reshape(rows.shape))
            first = x if first is None else first
            cross = layer["cross"](first, x)
            gated = layer["deep_gate"](bridge.reshape(rows.shape))
            deep = layer["deep"](gated, train=train, key=part, weight=weight)
            bridge = layer["bridge"](cross, deep)
        return output(self.first_order(inputs) + self.out(cross, deep, bridge)[:, 0])
