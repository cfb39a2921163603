"""Painting style as a vector: what the Gram matrices of a network's first stages keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from umair_jax.models.initialise import Draws, normal

POOLS = ("max", "mean", "triangle")
COMBINATIONS = ("max", "concat")
NORMS = ("none", "channel", "position")
_TINY = 1e-8


@dataclasses.dataclass(frozen=True)
class StyleConfig:
    """Where style is read, and how Gram matrices become a vector.

    The defaults are the paper's.

    Attributes:
        stages: Stages (from 1) whose blocks are read; the vectors of several are concatenated.
        blocks: How many blocks of each, from its first; 0 = all.
        pool: What is kept of a matrix: the "max" or the "mean" of each row (C numbers), or its
            upper "triangle" (C (C + 1) / 2 numbers).
        combine: What becomes of a stage's blocks: their element-wise "max", or "concat".
        channel_norm: What happens to the maps before: "none"; "channel", every channel divided by
            its root mean square over the positions, which makes correlations of the matrix;
            "position", the channels of every position divided by their root mean square.
        compress: Logarithm of the pooled numbers (log(1 + 100 |x|) with the sign of x), whose
            range is wide.
        standardise: Every number of the vector is brought to mean 0 and variance 1 with
            statistics measured in training, or when an untrained network is calibrated.
        projection: Width of a learned linear map that ends the head; 0 = none.
    """

    stages: tuple[int, ...] = (1,)
    blocks: int = 0
    pool: str = "max"
    combine: str = "max"
    channel_norm: str = "none"
    compress: bool = False
    standardise: bool = False
    projection: int = 0

    def __post_init__(self):
        if not self.stages or len(set(self.stages)) != len(self.stages):
            raise ValueError(
                f"style stages: got {self.stages}, expected one or more different stages, like (1,)"
            )
        for name, allowed in (
            ("pool", POOLS),
            ("combine", COMBINATIONS),
            ("channel_norm", NORMS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"style {name}: got {getattr(self, name)!r}, expected one of {allowed}"
                )
        for name in ("blocks", "projection"):
            if getattr(self, name) < 0:
                raise ValueError(f"style {name}: got {getattr(self, name)}, expected 0 or more")

    def pooled_width(self, channels: int, blocks: int) -> int:
        """Numbers kept of a stage with that many channels and blocks."""
        each = channels * (channels + 1) // 2 if self.pool == "triangle" else channels
        return each * (self.blocks or blocks) if self.combine == "concat" else each


def gram_style(
    blocks: Sequence[Float[Array, "B H W C"]],
    pool: str = "max",
    combine: str = "max",
    channel_norm: str = "none",
) -> Float[Array, "B S"]:
    """Style vectors of feature maps.

    Each block's matrix is pooled before the next one is made, so that a single C x C matrix per
    image is alive at a time, whatever the number of blocks.

    Args:
        blocks: Feature maps of one or more blocks, all with the same number of channels.
        pool: "max", "mean" or "triangle", see StyleConfig.
        combine: "max" or "concat".
        channel_norm: "none", "channel" or "position".

    Returns:
        float32 style vectors; S is StyleConfig.pooled_width.

    Raises:
        ValueError: `blocks` is empty.

    Source: UMAIR-FPS, image encoder: G = F^T F / (H W) per block, maximum over one axis of G (the
    matrix is symmetric), element-wise maximum over the blocks. Computed in float32 whatever
    the dtype of the maps.
    """
    if not blocks:
        raise ValueError("gram_style: got no feature maps, expected at least one block.")
    kept = None
    for block in blocks:
        gram = _gram(_normalised(block, channel_norm))
        pooled = _pooled(gram, pool)
        if kept is None:
            kept = pooled
        elif combine == "max":
            kept = jnp.maximum(kept, pooled)
        else:
            kept = jnp.concatenate([kept, pooled], axis=1)
    assert kept is not None
    return kept


def _pooled(gram: Float[Array, "B C C"], pool: str) -> Float[Array, "B _"]:
    if pool == "triangle":
        row, column = jnp.triu_indices(gram.shape[1])
        return gram[:, row, column]
    return gram.max(axis=1) if pool == "max" else gram.mean(axis=1)


def _gram(maps: Float[Array, "B H W C"]) -> Float[Array, "B C C"]:
    # With one axis of positions XLA's CPU product is half again as fast, its gradient nearly twice.
    rows = maps.reshape(maps.shape[0], -1, maps.shape[-1])
    # Products of bfloat16 or float16 numbers are exact in float32; as such they run on the matrix
    # units of an accelerator, which their float32 copies would not.
    gram = jnp.einsum(
        "bpc,bpd->bcd",
        rows,
        rows,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return gram / rows.shape[1]


def _normalised(maps: Float[Array, "B H W C"], norm: str) -> Float[Array, "B H W C"]:
    if norm == "none":
        return maps
    maps = maps.astype(jnp.float32)
    axes = (1, 2) if norm == "channel" else (3,)
    return maps * jax.lax.rsqrt(jnp.square(maps).mean(axes, keepdims=True) + _TINY)


class StyleHead(nnx.Module):
    """Style vectors from the blocks of all stages."""

    def __init__(
        self, cfg: StyleConfig, channels: Sequence[int], blocks: Sequence[int], *, rngs: Draws
    ):
        """Builds what the options need; the paper's head has no weights.

        Args:
            cfg: Options.
            channels: Output channels of every stage of the network.
            blocks: Its blocks per stage.
            rngs: Draws of the projection.
        """
        self.cfg = cfg
        width = sum(cfg.pooled_width(channels[s - 1], blocks[s - 1]) for s in cfg.stages)
        if cfg.standardise:
            self.mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32))
            self.var = nnx.BatchStat(jnp.ones((width,), jnp.float32))
        if cfg.projection:
            self.kernel = nnx.Param(normal(rngs, (width, cfg.projection), width**-0.5))
        self.width = cfg.projection or width

    def __call__(
        self,
        stages: Sequence[Sequence[Float[Array, "B _h _w _c"]]],
        train: bool = False,
        across: Bool[Array, " B"] | None = None,
        momentum: float = 0.9,
    ) -> tuple[Float[Array, "B S"], ...]:
        """Style of the whole pictures, or of their halves.

        Args:
            stages: For each stage the maps of its blocks.
            train: Standardise with the batch's statistics (of both halves) and keep them.
            across: Read two halves of each picture: above and below the middle where True, left
                and right of it where False. Maps must be square. None = the whole.
            momentum: Share of the old statistics that an update keeps.

        Returns:
            One array [B, S] of the whole pictures, or two of their halves.
        """
        cfg = self.cfg
        vectors = []
        read_maps = [stages[stage - 1][: cfg.blocks or None] for stage in cfg.stages]
        for maps_of in _halves(read_maps, across) if across is not None else [read_maps]:
            read = [gram_style(m, cfg.pool, cfg.combine, cfg.channel_norm) for m in maps_of]
            vector = jnp.concatenate(read, axis=1)
            if cfg.compress:
                vector = jnp.sign(vector) * jnp.log1p(100 * jnp.abs(vector))
            vectors.append(vector)
        if cfg.standardise:
            vectors = self._standardised(vectors, train, momentum)
        if cfg.projection:
            kernel = self.kernel[...]
            vectors = [vector @ kernel for vector in vectors]
        return tuple(vectors)

    def _standardised(self, vectors: list[Any], train: bool, momentum: float) -> list[Any]:
        if train:
            both = jnp.concatenate(vectors)
            mean, var = both.mean(0), both.var(0)
            for kept, new in ((self.mean, mean), (self.var, var)):
                kept[...] = momentum * kept[...] + (1 - momentum) * jax.lax.stop_gradient(new)
        else:
            mean, var = self.mean[...], self.var[...]
        return [(vector - mean) * jax.lax.rsqrt(var + _TINY) for vector in vectors]


def _halves(stages: list[Any], across: Bool[Array, " B"]) -> list[list[Any]]:
    """The maps of either half of each picture."""
    turn = across[:, None, None, None]
    upright = [[jnp.where(turn, m.swapaxes(1, 2), m) for m in maps] for maps in stages]
    one = [[m[:, :, : m.shape[2] // 2] for m in maps] for maps in upright]
    return [one, [[m[:, :, m.shape[2] // 2 :] for m in maps] for maps in upright]]
