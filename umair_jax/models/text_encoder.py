"""Sentence vectors: transformer, pooling over the tokens, optional dense layer and norm."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from umair_jax.models.initialise import Draws
from umair_jax.models.layers import check_choice
from umair_jax.models.transformer import Dense, Packing, Transformer, TransformerConfig

POOLINGS = ("mean", "cls", "max")
ACTIVATIONS = {"tanh": jnp.tanh, "identity": lambda x: x}


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
        position_offset: 2 for XLM-R and MPNet, 0 for the others.
        relative_buckets: 32 for MPNet, 0 for the others.
        token_types: 2 for BERT, 1 for XLM-R, 0 for DistilBERT and MPNet.
        epsilon: Of the layer normalisations.
        pooling: What of the last hidden states is the text's: their "mean", the first ("cls"), or
            the "max" of each channel.
        output: Width of the dense layer after pooling; 0 = none, the pooled vector is returned.
        activation: After the dense layer: "tanh" or "identity".
        normalise: Scale vectors to length 1.
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
    position_offset: int = 0
    relative_buckets: int = 0
    token_types: int = 0
    epsilon: float = 1e-12
    pooling: str = "mean"
    output: int = 512
    activation: str = "tanh"
    normalise: bool = False
    dropout: float = 0.1
    initial_std: float = 0.02
    position_std: float = 0.002
    dtype: str = "float32"

    def __post_init__(self):
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        if self.output < 0:
            raise ValueError(f"output: got {self.output}, expected 0 (no dense layer) or more.")
        _ = self.transformer  # checks the rest

    @property
    def transformer(self) -> TransformerConfig:
        """The transformer's own configuration."""
        names = (field.name for field in dataclasses.fields(TransformerConfig))
        return TransformerConfig(**{name: getattr(self, name) for name in names})

    @property
    def vector_width(self) -> int:
        """Width of a sentence vector."""
        return self.output or self.width


def pool_tokens(
    hidden: Float[Array, "B L D"], mask: Bool[Array, "B L"], kind: str = "mean"
) -> Float[Array, "B D"]:
    """One vector of a text's hidden states, in float32; zeros for a text without tokens.

    Args:
        hidden: Last hidden states.
        mask: True for real tokens.
        kind: One of POOLINGS.
    """
    inside, values = mask[..., None], hidden.astype(jnp.float32)
    if kind == "cls":
        return jnp.where(inside[:, 0], values[:, 0], 0)
    if kind == "max":
        return jnp.where(inside.any(1), jnp.where(inside, values, -jnp.inf).max(1), 0)
    total = jnp.where(inside, values, 0).sum(1)
    return total / jnp.maximum(inside.sum(1), 1e-9)


class TextEncoder(nnx.Module):
    """Token ids to one vector per text.

    Source: UMAIR-FPS, text encoder: DistilBERT -> mean pooling over the attention mask ->
    Dense 512 with tanh. The other options: Reimers and Gurevych 2019, Sentence-BERT.
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
            float32 vectors [B, vector_width].
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
            total = total + self._gathered(tokens, packing, count, train, key)
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
                again = jax.checkpoint(self._gathered, static_argnums=(2, 3))
                # A text is in one row, hence in one part: zeros come from all others.
                return total + again(tokens, Packing(*where), count, train, own), None

            total, _ = jax.lax.scan(one, total, (jnp.arange(parts), *pieces))
        return self._out(total)

    def _gathered(
        self,
        tokens: Int[Array, "B L"],
        packing: Packing,
        count: int,
        train: bool,
        key: jax.Array | None,
    ) -> Float[Array, "S D"]:
        """Pooled hidden states of each text, zeros for those of which no token is here."""
        inside = packing.slot >= 0
        hidden = self.transformer(tokens, inside, train=train, key=key, packing=packing)
        hidden = hidden.astype(jnp.float32)
        slot = jnp.where(inside, packing.slot, count)
        zeros = jnp.zeros((count, hidden.shape[-1]), jnp.float32)
        if self.cfg.pooling == "cls":
            slot = jnp.where(packing.position == 0, slot, count)
            return zeros.at[slot].add(hidden, mode="drop")
        lengths = jnp.zeros(count, jnp.float32).at[slot].add(1.0, mode="drop")[:, None]
        if self.cfg.pooling == "max":
            largest = (zeros - jnp.inf).at[slot].max(hidden, mode="drop")
            return jnp.where(lengths > 0, largest, 0)
        return zeros.at[slot].add(hidden, mode="drop") / jnp.maximum(lengths, 1e-9)

    def _out(self, pooled: Float[Array, "S D"]) -> Float[Array, "S E"]:
        vectors = pooled
        if self.cfg.output:
            vectors = ACTIVATIONS[self.cfg.activation](self.dense(pooled))
        if self.cfg.normalise:
            # Without the floor a text that pools to zeros would have no gradient.
            square = jnp.square(vectors).sum(-1, keepdims=True)
            vectors = vectors * jax.lax.rsqrt(jnp.maximum(square, 1e-24))
        return vectors

    def pool(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"],
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Float[Array, "B D"]:
        """What the dense layer is given. Arguments as in `__call__`."""
        hidden = self.transformer(tokens, mask, train=train, key=key)
        return pool_tokens(hidden, mask, self.cfg.pooling)
