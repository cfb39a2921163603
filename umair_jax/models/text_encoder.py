"""Sentence vectors: transformer, mean over the tokens, optional dense layer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from umair_jax.models.initialise import Draws
from umair_jax.models.transformer import Dense, Packing, Transformer, TransformerConfig


@dataclasses.dataclass(frozen=True)
class TextEncoderConfig:
    """Shape of the text encoder.

    Attributes:
        vocabulary: Number of token ids.
        layers: Transformer blocks.
        width: Channels of the transformer.
        heads: Attention heads.
        ffn: Hidden channels of the feed-forward layers.
        max_positions: Longest sequence with learned positions.
        token_types: 2 for BERT, 0 for DistilBERT.
        output: Width of the Dense + tanh after pooling; 0 = none, the pooled vector is returned.
        dropout: Rate in training.
        initial_std: Standard deviation of initial weights and token embeddings.
        position_std: The same for positions. Small, so that before training a text is the sum of
            its words wherever they stand.
        dtype: "float32" or "bfloat16" matrix products.
    """

    vocabulary: int = 16_000
    layers: int = 3
    width: int = 256
    heads: int = 4
    ffn: int = 1024
    max_positions: int = 512
    token_types: int = 0
    output: int = 512
    dropout: float = 0.1
    initial_std: float = 0.02
    position_std: float = 0.002
    dtype: str = "float32"

    def __post_init__(self):
        if self.output < 0:
            raise ValueError(f"output: got {self.output}, expected 0 (no dense layer) or more.")
        _ = self.transformer  # checks the rest

    @property
    def transformer(self) -> TransformerConfig:
        """The transformer's own configuration."""
        values = dataclasses.asdict(self)
        del values["output"]
        return TransformerConfig(**values)

    @property
    def vector_width(self) -> int:
        """Width of a sentence vector."""
        return self.output or self.width


def mean_pool(hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"]) -> Float[Array, "B D"]:
    """Mean over the tokens that are not padding, in float32; zeros where there are none."""
    weights = mask.astype(jnp.float32)[..., None]
    total = (hidden.astype(jnp.float32) * weights).sum(1)
    return total / jnp.maximum(weights.sum(1), 1e-9)


class TextEncoder(nnx.Module):
    """Token ids to one vector per text.

    Source: UMAIR-FPS, text encoder: DistilBERT -> mean pooling over the attention mask ->
    Dense 512 with tanh.
    """

    def __init__(self, cfg: TextEncoderConfig, *, rngs: Draws):
        self.cfg = cfg
        self.transformer = Transformer(cfg.transformer, rngs=rngs)
        if cfg.output:
            std = 1 / math.sqrt(cfg.width)
            self.dense = Dense(cfg.width, cfg.output, std, rngs=rngs)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "B D"]:
        """Encodes texts.

        Args:
            tokens: Ids in [0, vocabulary).
            mask: True for real tokens.
            train: Apply dropout.
            key: PRNG key, needed when `train` and the rate is above 0.

        Returns:
            float32 vectors [B, vector_width], in (-1, 1) when there is a dense layer.
        """
        return self._out(self.pool(tokens, mask, train=train, key=key))

    def packed(
        self,
        tokens: Int[Array, "B L"],
        packing: Packing,
        count: int,
        parts: int = 1,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "S D"]:
        """Encodes texts of which several share a row.

        Args:
            tokens: Ids in [0, vocabulary), 0 where padded.
            packing: Which text a token is of, below `count`, and where in it it stands.
            count: Number of texts S.
            parts: The rows are encoded in so many parts, one after another, and again in the
                backward pass, so that no more than one part's activations are kept: a gradient
                cache.
            train: Apply dropout.
            key: PRNG key, needed when `train` and the rate is above 0.

        Returns:
            float32 vectors [S, vector_width] as `__call__` gives them; those of texts without
            tokens are the ones of a zero mean.

        Source: gradient cache: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size.
        """
        if not train:
            key = None
        total = jnp.zeros((count, self.cfg.width), jnp.float32)
        if parts == 1:
            total = total + self._summed(tokens, packing, count, train, key)
        else:
            lack = -len(tokens) % parts
            pieces = [
                # Part i has rows i, i + parts, ...: every device works on each part.
                jnp.pad(rows, ((0, lack), (0, 0)), constant_values=fill)
                .reshape(-1, parts, rows.shape[1])
                .swapaxes(0, 1)
                for rows, fill in ((tokens, 0), (packing.slot, -1), (packing.position, 0))
            ]

            def one(total: jax.Array, piece: Any) -> tuple[jax.Array, None]:
                number, tokens, *where = piece
                own = None if key is None else jax.random.fold_in(key, number)
                again = jax.checkpoint(self._summed, static_argnums=(2, 3))
                return total + again(tokens, Packing(*where), count, train, own), None

            total, _ = jax.lax.scan(one, total, (jnp.arange(parts), *pieces))
        slot = jnp.where(packing.slot < 0, count, packing.slot)
        lengths = jnp.zeros(count, jnp.float32).at[slot].add(1.0, mode="drop")
        return self._out(total / jnp.maximum(lengths, 1e-9)[:, None])

    def _summed(
        self,
        tokens: Int[Array, "B L"],
        packing: Packing,
        count: int,
        train: bool,
        key: jax.Array | None,
    ) -> Float[Array, "S D"]:
        """Sums of the last hidden states over the tokens of each text."""
        inside = packing.slot >= 0
        hidden = self.transformer(tokens, inside, train=train, key=key, packing=packing)
        slot = jnp.where(inside, packing.slot, count)
        sums = jnp.zeros((count, hidden.shape[-1]), jnp.float32)
        return sums.at[slot].add(hidden.astype(jnp.float32), mode="drop")

    def _out(self, pooled: Float[Array, "S D"]) -> Float[Array, "S E"]:
        return jnp.tanh(self.dense(pooled)) if self.cfg.output else pooled

    def pool(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "B D"]:
        """The mean over the tokens, before the dense layer. Arguments as in `__call__`."""
        hidden = self.transformer(tokens, mask, train=train, key=key)
        return mean_pool(hidden, mask)
