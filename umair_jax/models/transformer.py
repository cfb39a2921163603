"""Transformer encoder with the arithmetic of BERT, DistilBERT, XLM-R and MPNet."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from umair_jax.models.initialise import Draws, normal

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_FURTHEST = 128  # tokens; MPNet's last bucket holds all distances from here


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of the encoder.

    Attributes:
        vocabulary: Number of token ids; id 0 is padding.
        layers: Number of blocks.
        width: Channels of the residual stream.
        heads: Attention heads; they divide `width`.
        ffn: Hidden channels of the feed-forward layer.
        max_positions: Longest sequence that has learned positions.
        position_offset: Rows of the positions that no token uses, before the first: 2 for XLM-R and
            MPNet, 0 for BERT.
        relative_buckets: Buckets of distances for which the attention has a learned bias: 32 for
            MPNet, 0 (no bias) for the others.
        token_types: Segment embeddings: 2 for BERT, 1 for XLM-R, 0 (none) for DistilBERT.
        dropout: Rate on embeddings, sub-layer outputs and attention weights, in training.
        epsilon: Of the layer normalisations.
        initial_std: Standard deviation of initial weights and token embeddings.
        position_std: The same for positions and segments.
        dtype: "float32" or "bfloat16": type of the matrix products' inputs. Soft-max and
            normalisation are float32 in both cases.
    """

    vocabulary: int = 30_522
    layers: int = 12
    width: int = 768
    heads: int = 12
    ffn: int = 3072
    max_positions: int = 512
    position_offset: int = 0
    relative_buckets: int = 0
    token_types: int = 2
    dropout: float = 0.1
    epsilon: float = 1e-12
    initial_std: float = 0.02
    position_std: float = 0.02
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("vocabulary", "layers", "width", "heads", "ffn", "max_positions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1.")
        for name in ("position_offset", "token_types"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more.")
        if self.relative_buckets % 4 or self.relative_buckets < 0:
            raise ValueError(
                f"relative_buckets: got {self.relative_buckets}, expected 0 or a multiple of 4."
            )
        if self.epsilon <= 0:
            raise ValueError(f"epsilon: got {self.epsilon}, expected a number above 0.")
        if self.width % self.heads:
            raise ValueError(f"heads: got {self.heads}, expected a divisor of width {self.width}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: got {self.dropout}, expected at least 0 and below 1.")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, expected one of {sorted(DTYPES)}.")


class Packing(NamedTuple):
    """Rows that hold several texts each.

    Attributes:
        slot: The text of each token; -1 = padding.
        position: Its place in that text, from 0.
    """

    slot: Int[Array, "B L"]
    position: Int[Array, "B L"]


class Dense(nnx.Module):
    """Affine map over the last axis."""

    def __init__(self, inputs: int, outputs: int, std: float, *, rngs: Draws):
        self.kernel = nnx.Param(normal(rngs, (inputs, outputs), std))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B E"]:
        """Multiplies in the dtype of `x`."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, in float32."""

    def __init__(self, width: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalises and returns the dtype of `x`."""
        values = x.astype(jnp.float32)
        centred = values - values.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        values = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (values * self.scale[...] + self.bias[...]).astype(x.dtype)


def dropout(x: Float[Array, "..."], rate: float, key: jax.Array | None) -> Float[Array, "..."]:
    """Zeroes a share `rate` of `x` and scales the rest; the identity without a key."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


class Block(nnx.Module):
    """Self-attention and feed-forward layer, each followed by residual sum and LayerNorm."""

    def __init__(self, cfg: TransformerConfig, *, rngs: Draws):
        width, std = cfg.width, cfg.initial_std
        self.heads = cfg.heads
        self.rate = cfg.dropout
        self.query = Dense(width, width, std, rngs=rngs)
        self.key = Dense(width, width, std, rngs=rngs)
        self.value = Dense(width, width, std, rngs=rngs)
        self.out = Dense(width, width, std, rngs=rngs)
        self.attention_norm = LayerNorm(width, cfg.epsilon)
        self.ffn_in = Dense(width, cfg.ffn, std, rngs=rngs)
        self.ffn_out = Dense(cfg.ffn, width, std, rngs=rngs)
        self.ffn_norm = LayerNorm(width, cfg.epsilon)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        allowed: Bool[Array, "B 1 _ L"],
        bias: Float[Array, "_ H L L"] | None,
        key: jax.Array | None,
    ) -> Float[Array, "B L D"]:
        """One block.

        Args:
            x: Hidden states.
            allowed: Which tokens a token attends to.
            bias: Added to the scores of the attention; None = nothing.
            key: Switches dropout on.
        """
        keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        attended = dropout(self._attend(x, allowed, bias, keys[0]), self.rate, keys[1])
        x = self.attention_norm(x + attended)
        hidden = jax.nn.gelu(self.ffn_in(x), approximate=False)
        return self.ffn_norm(x + dropout(self.ffn_out(hidden), self.rate, keys[2]))

    def _attend(
        self,
        x: Float[Array, "B L D"],
        allowed: Bool[Array, "B 1 _ L"],
        bias: Float[Array, "_ H L L"] | None,
        key: jax.Array | None,
    ) -> Float[Array, "B L D"]:
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        q, k, v = (room(x).reshape(split) for room in (self.query, self.key, self.value))
        scores = jnp.einsum("blhd,bmhd->bhlm", q, k).astype(jnp.float32) / (split[-1] ** 0.5)
        if bias is not None:
            scores = scores + bias
        scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
        weights = dropout(jax.nn.softmax(scores, axis=-1), self.rate, key).astype(x.dtype)
        return self.out(jnp.einsum("bhlm,bmhd->blhd", weights, v).reshape(x.shape))


def distance_bucket(distance: Int[Array, "..."], buckets: int) -> Int[Array, "..."]:
    """The bucket of a distance between two tokens.

    Half of the buckets are for keys after the query; in each half, half are single distances, and
    the rest grow up to 128 tokens with the logarithm.

    Args:
        distance: Place of the key less that of the query.
        buckets: How many there are, a multiple of 4.

    Source: Raffel et al. 2020 (T5), as MPNet (Song et al. 2020) uses it.
    """
    half = buckets // 2
    exact = half // 2
    far = jnp.abs(distance)
    scale = (half - exact) / math.log(_FURTHEST / exact)
    grown = exact + (jnp.log(jnp.maximum(far, 1) / exact) * scale).astype(jnp.int32)
    return jnp.where(far < exact, far, jnp.minimum(grown, half - 1)) + half * (distance > 0)


class Transformer(nnx.Module):
    """Token ids to one vector per token.

    Source: Devlin et al. 2018 (BERT); with token_types=0, Sanh et al. 2019 (DistilBERT); with
    position_offset=2, Conneau et al. 2020 (XLM-R); with relative_buckets=32 besides, Song et al.
    2020 (MPNet).
    """

    def __init__(self, cfg: TransformerConfig, *, rngs: Draws):
        self.cfg = cfg
        self.tokens = nnx.Param(normal(rngs, (cfg.vocabulary, cfg.width), cfg.initial_std))
        rows = cfg.max_positions + cfg.position_offset
        self.positions = nnx.Param(normal(rngs, (rows, cfg.width), cfg.position_std))
        if cfg.relative_buckets:
            shape = (cfg.relative_buckets, cfg.heads)
            self.distances = nnx.Param(normal(rngs, shape, cfg.initial_std))
        if cfg.token_types:
            self.types = nnx.Param(normal(rngs, (cfg.token_types, cfg.width), cfg.position_std))
        self.norm = LayerNorm(cfg.width, cfg.epsilon)
        for i in range(cfg.layers):
            setattr(self, f"layer{i}", Block(cfg, rngs=rngs))

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        types: Int[Array, "B L"] | None = None,
        train: bool = False,
        key: jax.Array | None = None,
        packing: Packing | None = None,
    ) -> Float[Array, "B L D"]:
        """Encodes token ids.

        Args:
            tokens: Ids in [0, vocabulary).
            mask: True for real tokens, False for padding.
            types: Segment of each token; None = segment 0. Ignored without segment embeddings.
            train: Apply dropout.
            key: PRNG key; needed when `train` and the rate is above 0.
            packing: Where a row holds several texts: which, and where in them each token stands.

        Returns:
            Last hidden states, in the configured dtype. Those of padding are meaningless.

        Raises:
            ValueError: Too many tokens for the learned positions, or dropout without a key.
        """
        cfg = self.cfg
        length = tokens.shape[1]
        if length > cfg.max_positions:
            raise ValueError(
                f"tokens: got length {length}, expected at most max_positions = "
                f"{cfg.max_positions}; truncate the text."
            )
        if train and cfg.dropout and key is None:
            raise ValueError("key: got None, expected a PRNG key: dropout is on in training.")
        if not train:
            key = None
        allowed = mask[:, None, None, :]
        position = jnp.arange(length)[None]
        if packing is not None:
            position, slot = packing.position, packing.slot
            allowed = allowed & (slot[:, None, :, None] == slot[:, None, None, :])
        x = self.tokens[...][tokens] + self.positions[...][cfg.position_offset + position]
        bias = None
        if cfg.relative_buckets:
            distance = position[:, None, :] - position[:, :, None]
            bias = self.distances[...][distance_bucket(distance, cfg.relative_buckets)]
            bias = bias.transpose(0, 3, 1, 2)
        if cfg.token_types:
            rows = self.types[...]
            x = x + (rows[0] if types is None else rows[types])
        x = self.norm(x).astype(DTYPES[cfg.dtype])
        x = dropout(x, cfg.dropout, None if key is None else jax.random.fold_in(key, cfg.layers))
        for i in range(cfg.layers):
            layer_key = None if key is None else jax.random.fold_in(key, i)
            x = getattr(self, f"layer{i}")(x, allowed, bias, layer_key)
        return x
