"""One network, two vectors: what a picture shows (content) and how it is painted (style)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.initialise import Draws
from umair_jax.models.resnet import ResNet, ResNetConfig
from umair_jax.models.style import gram_style


@dataclasses.dataclass(frozen=True)
class ImageEncoderConfig:
    """Which network, at which resolution, and where the two vectors are read.

    Attributes:
        depth: 50, 101 or 152 layers.
        base_width: Channels of the stem; 64 is the standard width (content 2048, style 256).
        blocks: Blocks per stage in place of those of `depth`; empty = those of `depth`.
        image_size: Height and width of the square input, in pixels.
        content_stage: Stage (from 1) whose last block is averaged into the content vector.
        style_stage: Stage (from 1) whose blocks give the style vector.
        style_blocks: How many blocks of that stage, from its first; 0 = all.
        pre_activation: Read the residual sums before the ReLU of their block (as the paper's code
            does) rather than after it.
        mean: Subtracted from the channels of images in [0, 1]; empty = nothing.
        std: Divides the channels after that; empty = nothing.
        last_gamma: Initial scale of every block's last BatchNorm. Small values keep an untrained
            network close to its shortcuts, so that its vectors still tell pictures apart.
        dtype: "float32" or "bfloat16" convolutions.
    """

    depth: int = 101
    base_width: int = 16
    blocks: tuple[int, ...] = ()
    image_size: int = 128
    content_stage: int = 4
    style_stage: int = 1
    style_blocks: int = 0
    pre_activation: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    last_gamma: float = 0.1
    dtype: str = "float32"

    def __post_init__(self):
        stages = len(self.resnet.blocks_per_stage)
        for name in ("content_stage", "style_stage"):
            if not 1 <= getattr(self, name) <= stages:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 to {stages}.")
        available = self.resnet.blocks_per_stage[self.style_stage - 1]
        if not 0 <= self.style_blocks <= available:
            raise ValueError(
                f"style_blocks: got {self.style_blocks}, expected 0 (all) to {available}, the "
                f"number of blocks of stage {self.style_stage}."
            )
        if self.image_size < 2 ** (stages + 1):
            raise ValueError(
                f"image_size: got {self.image_size}, expected at least {2 ** (stages + 1)} pixels."
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, 3):
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 3 numbers or none.")

    @property
    def resnet(self) -> ResNetConfig:
        """The backbone's own configuration."""
        return ResNetConfig(
            depth=self.depth,
            base_width=self.base_width,
            blocks=self.blocks,
            last_gamma=self.last_gamma,
            dtype=self.dtype,
        )

    @property
    def content_width(self) -> int:
        """Width of the content vector."""
        return self.resnet.channels(self.content_stage)

    @property
    def style_width(self) -> int:
        """Width of the style vector."""
        return self.resnet.channels(self.style_stage)


class ImageVectors(NamedTuple):
    """The encoder's two outputs, float32."""

    content: Float[Array, "B C"]
    style: Float[Array, "B S"]


class ImageEncoder(nnx.Module):
    """ResNet with a content head (mean pool) and a style head (Gram maxima).

    Source: UMAIR-FPS, image encoder with dual output.
    """

    def __init__(self, cfg: ImageEncoderConfig, *, rngs: Draws):
        self.cfg = cfg
        self.backbone = ResNet(cfg.resnet, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"], train: bool = False) -> ImageVectors:
        """Encodes images.

        Args:
            images: float32 or bfloat16 in [0, 1], RGB; mean and std of the configuration are
                applied here.
            train: Use and update batch statistics.

        Returns:
            Content [B, content_width] and style [B, style_width], float32.
        """
        cfg = self.cfg
        if cfg.mean:
            images = images - jnp.asarray(cfg.mean, images.dtype)
        if cfg.std:
            images = images / jnp.asarray(cfg.std, images.dtype)
        stages = self.backbone(images, train)
        content = stages[cfg.content_stage - 1][-1]
        style = stages[cfg.style_stage - 1][: cfg.style_blocks or None]
        if not cfg.pre_activation:
            content, style = jax.nn.relu(content), tuple(jax.nn.relu(block) for block in style)
        return ImageVectors(semantic_content(content), gram_style(style))


def semantic_content(maps: Float[Array, "B H W C"]) -> Float[Array, "B C"]:
    """Global average pool in float32."""
    return maps.astype(jnp.float32).mean((1, 2))


def batch_statistics(encoder: ImageEncoder, images: Float[Array, "B H W 3"]) -> Any:
    """BatchNorm statistics of one batch, every layer fed by layers normalised on that batch.

    Averaging the result over batches calibrates an untrained network: without it the
    running statistics do not fit and the activations of 101 layers explode.

    Args:
        encoder: Not modified.
        images: As for `ImageEncoder.__call__`.

    Returns:
        A pure nested dict of the encoder's `nnx.BatchStat` variables.
    """
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    keep = encoder.cfg.resnet.momentum
    zeros = jax.tree.map(jnp.zeros_like, stats)
    copy = nnx.merge(graph, params, zeros)
    copy(images, train=True)
    updated = nnx.to_pure_dict(nnx.state(copy, nnx.BatchStat))
    # A running average that starts from zero holds (1 - keep) times the batch's statistics.
    return jax.tree.map(lambda x: x / (1 - keep), updated)
