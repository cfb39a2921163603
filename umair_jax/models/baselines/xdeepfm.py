"""xDeepFM: a compressed interaction network beside a multi-layer network."""

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
from umair_jax.models.layers import Dense, product


@dataclasses.dataclass(frozen=True)
class XDeepFMConfig(DeepConfig):
    """Options of XDeepFM.

    Attributes:
        cin_widths: Feature maps H_k of each layer of the compressed interaction network.
    """

    cin_widths: tuple[int, ...] = (64, 64)

    def __post_init__(self):
        super().__post_init__()
        if not self.cin_widths:
            raise ValueError("xdeepfm cin_widths: got none, expected at least one")

    def create(self, rngs: nnx.Rngs) -> XDeepFM:
        """The ranker."""
        return XDeepFM(self, rngs=rngs)


class CompressedInteraction(nnx.Module):
    """x^k_h = sum_{i,j} W^k_{h,i,j} (x^0_i * x^{k-1}_j); the sums over D of all maps.

    Source: Lian et al., xDeepFM (KDD 2018), equations 6 and 7; linear, all maps kept.
    """

    def __init__(
        self, fields: int, widths: tuple[int, ...], *, rngs: nnx.Rngs, dtype: str = "float32"
    ):
        init = nnx.initializers.glorot_uniform()
        self.kernels = nnx.Dict()
        before = fields
        for index, width in enumerate(widths):
            kernel = init(rngs.params(), (fields * before, width), jnp.float32)
            self.kernels[f"layer_{index}"] = nnx.Param(kernel)
            before = width
        self.dtype = dtype

    def __call__(self, fields: Float[Array, "B F D"]) -> Float[Array, "B H"]:
        """The pooled maps of all layers, side by side."""
        batch, count, width = fields.shape
        # Rows of one example's dimension, so that a layer is one matrix product.
        first = fields.transpose(0, 2, 1).reshape(batch * width, count)
        maps, pooled = first, []
        for index in range(len(self.kernels)):
            kernel = self.kernels[f"layer_{index}"][...]
            before, after = maps.shape[1], kernel.shape[1]
            # The sum over j first: H x F numbers a row, in place of all F x F products of fields.
            kernel = kernel.reshape(count, before, after).transpose(1, 2, 0).reshape(before, -1)
            sums = product(maps, kernel, self.dtype).reshape(-1, after, count)
            maps = (sums * first[:, None, :]).sum(axis=2)
            pooled.append(maps.reshape(batch, width, -1).sum(axis=1))
        return jnp.concatenate(pooled, axis=-1)


class XDeepFM(nnx.Module):
    """logit = first order + w . CIN(fields) + w . MLP([embeddings, vectors]).

    Source: Lian et al., xDeepFM (KDD 2018), equation 8.
    """

    def __init__(self, cfg: XDeepFMConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.first_order = FirstOrder(cfg, rngs=rngs)
        self.fields = Fields(cfg, rngs=rngs)
        self.cin = CompressedInteraction(cfg.all_fields, cfg.cin_widths, rngs=rngs, dtype=cfg.dtype)
        self.cin_out = Dense(sum(cfg.cin_widths), 1, rngs=rngs, use_bias=False)
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
        crossed = self.cin_out(self.cin(self.fields(inputs)))[:, 0]
        return output(self.first_order(inputs) + crossed + deep)
