"""Painting style as a vector: which features meet how often in the maps of the first stages.

A Gram matrix compares two maps with the kernel k(x, y) = (x . y)^2 between their positions (Li et
al. 2017, Demystifying Neural Style Transfer). It sees second moments alone; a Gaussian kernel sees
whole distributions, palettes among them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from umair_jax.models.initialise import Draws, Fixed, normal

KERNELS = ("gram", "gaussian")
POOLS = ("max", "mean", "triangle")
COMBINATIONS = ("max", "concat")
NORMS = ("none", "channel", "position")
_TINY = 1e-8
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclasses.dataclass(frozen=True)
class StyleConfig:
    """Where style is read, and how maps become a vector.

    The defaults are the paper's.

    Attributes:
        stages: Stages whose blocks are read, from 1; 0 = the stem, before its max-pool. The vectors
            of several are concatenated.
        blocks: How many blocks of each, from its first; 0 = all.
        stride: Read every n-th position each way.
        kernel: "gram", or "gaussian": the mean over the positions of random Fourier features, whose
            inner products are a Gaussian kernel between the positions of two maps.
        frequencies: How many such features; kernel "gaussian" alone.
        bandwidths: Standard deviation of that kernel, as a multiple of the distance that two
            positions have on average (root mean square, divided by the square root of 2). Several
            share the features evenly: a sum of kernels, narrow ones for exact colours, wide ones
            for the mood.
        pool: What is kept of a Gram matrix: the "max" or the "mean" of each row (C numbers), or its
            upper "triangle" (C (C + 1) / 2 numbers).
        combine: What becomes of a stage's blocks: their element-wise "max", or "concat".
        channel_norm: What happens to the maps before a Gram matrix: "none"; "channel", every
            channel divided by its root mean square over the positions, which makes correlations
            of the matrix; "position", the channels of every position divided by theirs.
        compress: Logarithm of the pooled numbers (log(1 + 100 |x|) with the sign of x), whose
            range is wide.
        standardise: Every number of the vector is brought to mean 0 and variance 1 with
            statistics measured in training, or when an untrained network is calibrated.
        projection: Width of a learned linear map that ends the head; 0 = none.
    """

    stages: tuple[int, ...] = (1,)
    blocks: int = 0
    stride: int = 1
    kernel: str = "gram"
    frequencies: int = 512
    bandwidths: tuple[float, ...] = (0.2,)
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
            ("kernel", KERNELS),
            ("pool", POOLS),
            ("combine", COMBINATIONS),
            ("channel_norm", NORMS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"style {name}: got {getattr(self, name)!r}, expected one of {allowed}"
                )
        for name, least in (("blocks", 0), ("projection", 0), ("stride", 1), ("frequencies", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"style {name}: got {getattr(self, name)}, expected {least} or more"
                )
        if not self.bandwidths or min(self.bandwidths) <= 0:
            raise ValueError(
                f"style bandwidths: got {self.bandwidths}, expected one or more above 0"
            )

    def pooled_width(self, channels: int, blocks: int) -> int:
        """Numbers kept of a stage with that many channels and blocks."""
        each = channels * (channels + 1) // 2 if self.pool == "triangle" else channels
        if self.kernel == "gaussian":
            each = self.frequencies
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
    pooled = (_pooled(_gram(_normalised(block, channel_norm)), pool) for block in blocks)
    return _combined(pooled, combine)


def gaussian_style(
    blocks: Sequence[Float[Array, "B H W C"]],
    frequencies: Float[Array, "C K"],
    combine: str = "max",
) -> Float[Array, "B S"]:
    """Style vectors whose inner products approximate a Gaussian kernel between feature maps.

    Args:
        blocks: Feature maps of one or more blocks, all with the same number of channels.
        frequencies: Normal draws, divided by 2 pi and by the kernel's standard deviation.
        combine: "max" or "concat".

    Returns:
        Means over the positions p of cos(2 pi (x_p . frequency + phase)), float32, the phases being
        spread evenly from 0 to 1.

    Source: random Fourier features, Rahimi and Recht 2007; means of them (kernel mean embeddings)
    compare distributions, see Gretton et al. 2012.
    """
    rows = (block.reshape(len(block), -1, block.shape[-1]).astype(jnp.float32) for block in blocks)
    # Multiples of the golden ratio are even for every number of frequencies.
    phases = np.arange(frequencies.shape[1]) * _GOLDEN % 1

    def features(x: Float[Array, "B P C"]) -> Float[Array, "B K"]:
        # Whole turns drop out, so rounding counts against one turn and not against the product.
        highest = jax.lax.Precision.HIGHEST
        turns = jnp.einsum("bpc,ck->bpk", x, frequencies, precision=highest)
        return _cosine(turns + jnp.float32(phases)).mean(1)

    return _combined((features(x) for x in rows), combine)


def _cosine(turns: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """cos(2 pi turns) to 1e-6; on CPUs XLA's own cosine takes more than twice as long."""
    x = jnp.pi * (turns - jnp.round(turns))
    square = x * x
    # Taylor's series of the sine, from x^11 / 11! inwards; |x| is at most pi / 2.
    series = jnp.float32(1)
    for n in (110, 72, 42, 20, 6):
        series = 1 - square * series / n
    return 1 - 2 * jnp.square(x * series)


def _combined(pooled: Iterable[Float[Array, "B _"]], combine: str) -> Float[Array, "B S"]:
    # One after the other: what is pooled of a block is small, what it is pooled of is not.
    if combine == "max":
        return functools.reduce(jnp.maximum, pooled)
    return jnp.concatenate(list(pooled), axis=1)


def _pooled(gram: Float[Array, "B C C"], pool: str) -> Float[Array, "B _"]:
    if pool == "triangle":
        row, column = jnp.triu_indices(gram.shape[1])
        return gram[:, row, column]
    return gram.max(axis=1) if pool == "max" else gram.mean(axis=1)


def _gram(maps: Float[Array, "B H W C"]) -> Float[Array, "B C C"]:
    batch, height, width, channels = maps.shape
    # With one axis of positions XLA's CPU product is half again as fast, its gradient nearly twice.
    flat = maps.reshape(batch, height * width, channels)
    # Accelerators would wait longer for the halves to be copied than for the products they save.
    gram = jax.lax.platform_dependent(flat, cpu=_by_halves, default=lambda x: _product(x, x))
    return gram / (height * width)


def _by_halves(maps: Float[Array, "B P C"]) -> Float[Array, "B C C"]:
    # The matrix is symmetric: products of one half of the channels with the other are taken once.
    # Four or eight parts save more products, and on CPUs lose more than that in copies.
    middle = maps.shape[-1] // 2
    first, second = maps[..., :middle], maps[..., middle:]
    mixed = _product(first, second)
    upper = jnp.concatenate([_product(first, first), mixed], axis=2)
    lower = jnp.concatenate([mixed.swapaxes(1, 2), _product(second, second)], axis=2)
    return jnp.concatenate([upper, lower], axis=1)


def _product(x: Float[Array, "B P _c"], y: Float[Array, "B P _d"]) -> Float[Array, "B _c _d"]:
    # Products of bfloat16 or float16 numbers are exact in float32; as such they run on the matrix
    # units of an accelerator, which their float32 copies would not.
    return jnp.einsum(
        "bpc,bpd->bcd",
        x,
        y,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


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
            channels: Output channels of the stem and of every stage of the network.
            blocks: Their maps: one, and its blocks per stage.
            rngs: Draws of frequencies and of the projection.
        """
        self.cfg = cfg
        width = sum(cfg.pooled_width(channels[s], blocks[s]) for s in cfg.stages)
        if cfg.standardise:
            self.mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32))
            self.var = nnx.BatchStat(jnp.ones((width,), jnp.float32))
        if cfg.kernel == "gaussian":
            for stage in cfg.stages:
                wide = channels[stage]
                draws = normal(rngs, (wide, cfg.frequencies), 1 / (2 * math.pi))
                draws /= np.resize(np.asarray(cfg.bandwidths, np.float32), cfg.frequencies)
                # In half precision from the start: a file stored so holds the same features.
                draws = draws.astype(jnp.float16).astype(jnp.float32)
                setattr(self, f"frequencies{stage}", Fixed(draws))
                setattr(self, f"variance{stage}", nnx.BatchStat(jnp.float32(1)))
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
            stages: The stem's maps, then for each stage those of its blocks.
            train: Standardise with the batch's statistics (of both halves) and keep them.
            across: Read two halves of each picture: above and below the middle where True, left
                and right of it where False. Maps must be square. None = the whole.
            momentum: Share of the old statistics that an update keeps.

        Returns:
            One array [B, S] of the whole pictures, or two of their halves.
        """
        cfg = self.cfg
        step = cfg.stride
        maps = [
            [block[:, ::step, ::step] for block in stages[stage][: cfg.blocks or None]]
            for stage in cfg.stages
        ]
        if cfg.kernel == "gaussian":
            maps = [
                self._scaled(s, m, train, momentum) for s, m in zip(cfg.stages, maps, strict=True)
            ]
        vectors = []
        for maps_of in _halves(maps, across) if across is not None else [maps]:
            read = [self._read(s, m) for s, m in zip(cfg.stages, maps_of, strict=True)]
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

    def _read(self, stage: int, maps: list[Any]) -> Float[Array, "B _"]:
        cfg = self.cfg
        if cfg.kernel == "gaussian":
            frequencies = getattr(self, f"frequencies{stage}")[...]
            return gaussian_style(maps, frequencies, cfg.combine)
        return gram_style(maps, cfg.pool, cfg.combine, cfg.channel_norm)

    def _scaled(self, stage: int, maps: list[Any], train: bool, momentum: float) -> list[Any]:
        """Maps in which two positions are sqrt(2) apart, root mean square."""
        variance = getattr(self, f"variance{stage}")
        maps = [block.astype(jnp.float32) for block in maps]
        if train:
            measured = sum(block.var((0, 1, 2)).sum() for block in maps) / len(maps)
            kept = momentum * variance[...] + (1 - momentum) * jax.lax.stop_gradient(measured)
            variance[...] = kept
        else:
            measured = variance[...]
        return [block * jax.lax.rsqrt(measured + _TINY) for block in maps]

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
