"""Cross networks: products of features of bounded degree (DCN and the DCN-V2 family)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.layers import DTYPES, check_choice, product

# Up to here one product with a block-diagonal matrix, zeros included, beats a batch of small
# ones: 1.3 to 1.6 times on a CPU at batches of 1,024 and more; and 128 is a TPU's native size.
BLOCK_DIAGONAL_WIDTH = 256

KINDS = ("none", "vector", "matrix", "low_rank", "mixture")


@dataclasses.dataclass(frozen=True)
class CrossConfig:
    """Which crosses.

    Attributes:
        kind: "none"; "vector" (DCN): x0 (x . w) + b; "matrix" (DCN-V2): x0 * (W x + b);
            "low_rank": x0 * (U V^T x + b); "mixture": gated low-rank experts with tanh.
        layers: Number of layers, so degree layers + 1.
        rank: Rank R of "low_rank" and of each expert of "mixture".
        experts: Number K of experts of "mixture".
        dtype: "float32" or "bfloat16": type of the matrix products' inputs.
    """

    kind: str = "mixture"
    layers: int = 2
    rank: int = 32
    experts: int = 4
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("cross kind", self.kind, KINDS)
        check_choice("cross dtype", self.dtype, tuple(DTYPES))
        for name in ("layers", "rank", "experts"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"cross {name}: got {getattr(self, name)}, expected at least 1; "
                    "kind='none' leaves the cross network out"
                )


class VectorCross(nnx.Module):
    """One layer of DCN: x0 (x . w) + b + x."""

    def __init__(self, width: int, cfg: CrossConfig, *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_normal()
        self.kernel = nnx.Param(init(rngs.params(), (width, 1), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(
        self, x0: Float[Array, "B D"], x: Float[Array, "B D"], gates: None = None
    ) -> Float[Array, "B D"]:
        """The layer's output; one dot product per example, always float32."""
        return x0 * (x @ self.kernel[...]) + self.bias[...] + x


class MatrixCross(nnx.Module):
    """One layer of DCN-V2: x0 * (x W + b) + x."""

    def __init__(self, width: int, cfg: CrossConfig, *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_normal()
        self.kernel = nnx.Param(init(rngs.params(), (width, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.dtype = cfg.dtype

    def __call__(
        self, x0: Float[Array, "B D"], x: Float[Array, "B D"], gates: None = None
    ) -> Float[Array, "B D"]:
        """The layer's output."""
        return x0 * (product(x, self.kernel[...], self.dtype) + self.bias[...]) + x


class LowRankCross(nnx.Module):
    """One low-rank layer of DCN-V2: x0 * (x V U + b) + x."""

    def __init__(self, width: int, cfg: CrossConfig, *, rngs: nnx.Rngs):
        init = nnx.initializers.glorot_normal()
        self.v = nnx.Param(init(rngs.params(), (width, cfg.rank), jnp.float32))
        self.u = nnx.Param(init(rngs.params(), (cfg.rank, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.dtype = cfg.dtype

    def __call__(
        self, x0: Float[Array, "B D"], x: Float[Array, "B D"], gates: None = None
    ) -> Float[Array, "B D"]:
        """The layer's output."""
        low = product(x, self.v[...], self.dtype)
        return x0 * (product(low, self.u[...], self.dtype) + self.bias[...]) + x


class MixtureCross(nnx.Module):
    """One mixture layer of DCN-V2, its experts side by side in two matrix products.

    x + sum_k g_k x0 * (U_k tanh(C_k tanh(V_k^T x)) + b). The gates sum to 1, so this equals
    x + x0 * (U [g_1 c_1 .. g_K c_K] + b) with U = [U_1 .. U_K]: the gates fold into the low-rank
    activations, and all experts share one product down (v: [D, K*R]) and one up (u: [K*R, D]).
    """

    def __init__(self, width: int, cfg: CrossConfig, *, rngs: nnx.Rngs):
        experts, rank = cfg.experts, cfg.rank
        # As in Keras, the expert axis counts into both fans.
        init = nnx.initializers.glorot_normal()
        v = init(rngs.params(), (experts, width, rank), jnp.float32)
        u = init(rngs.params(), (experts, width, rank), jnp.float32)
        self.v = nnx.Param(v.transpose(1, 0, 2).reshape(width, experts * rank))
        self.c = nnx.Param(init(rngs.params(), (experts, rank, rank), jnp.float32))
        self.u = nnx.Param(u.transpose(0, 2, 1).reshape(experts * rank, width))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.rank = rank
        self.dtype = cfg.dtype

    def __call__(
        self, x0: Float[Array, "B D"], x: Float[Array, "B D"], gates: Float[Array, "B K"]
    ) -> Float[Array, "B D"]:
        """The layer's output.

        Args:
            x0: Input of the cross network.
            x: Input of this layer.
            gates: Weight of every expert; rows sum to 1.
        """
        low = jnp.tanh(product(x, self.v[...], self.dtype))
        low = jnp.tanh(self._within_experts(low))
        experts = gates.shape[-1]
        low = (low.reshape(-1, experts, self.rank) * gates[..., None]).reshape(low.shape)
        return x0 * (product(low, self.u[...], self.dtype) + self.bias[...]) + x

    def _within_experts(self, low: jax.Array) -> jax.Array:
        """Multiplies each expert's part [B, R] of [B, K*R] by its own matrix c_k."""
        core = self.c[...]
        experts, rank, _ = core.shape
        if experts * rank <= BLOCK_DIAGONAL_WIDTH:
            blocks = jnp.eye(experts)[:, None, :, None] * core[:, :, None, :]
            return product(low, blocks.reshape(experts * rank, experts * rank), self.dtype)
        kind = DTYPES[self.dtype]
        low = low.reshape(-1, experts, rank).astype(kind)
        out = jnp.einsum("bkr,krs->bks", low, core.astype(kind)).astype(jnp.float32)
        return out.reshape(-1, experts * rank)


_LAYERS = {
    "vector": VectorCross,
    "matrix": MatrixCross,
    "low_rank": LowRankCross,
    "mixture": MixtureCross,
}


class CrossNetwork(nnx.Module):
    """A chain of cross layers on one vector.

    Source: DCN (arXiv 1708.05123) for "vector", DCN-V2 (arXiv 2008.13535) for the others. As in
    the published UMAIR-FPS code the gates of "mixture" are shared by its layers.
    """

    def __init__(self, width: int, cfg: CrossConfig, *, rngs: nnx.Rngs):
        self.cfg = cfg
        self.layers = nnx.Dict()
        if cfg.kind != "none":
            for index in range(cfg.layers):
                self.layers[f"layer_{index}"] = _LAYERS[cfg.kind](width, cfg, rngs=rngs)
        if cfg.kind == "mixture":
            # One Dense(1) per expert there: the fan-out is 1, not the number of experts.
            init = nnx.initializers.variance_scaling(2.0 / (width + 1) * width, "fan_in", "uniform")
            self.gate = nnx.Param(init(rngs.params(), (width, cfg.experts), jnp.float32))

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Crosses x with itself; float32, of the shape of `x`."""
        x = x.astype(jnp.float32)
        x0 = x
        for index in range(len(self.layers)):
            gates = None
            if self.cfg.kind == "mixture":
                gates = jax.nn.softmax(x @ self.gate[...], axis=-1)
            x = self.layers[f"layer_{index}"](x0, x, gates)
        return x
