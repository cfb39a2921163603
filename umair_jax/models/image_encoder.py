"""One network, two vectors: what a picture shows (content) and how it is painted (style)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from umair_jax.models.initialise import Draws, Fixed
from umair_jax.models.resnet import ResNet, ResNetConfig
from umair_jax.models.style import StyleConfig, StyleHead
from umair_jax.models.whitening import Moments, Whitening


@dataclasses.dataclass(frozen=True)
class ImageEncoderConfig:
    """Which network, at which resolution, and where the two vectors are read.

    Attributes:
        depth: 50, 101 or 152 layers.
        base_width: Channels of the stem; 64 is the standard width (content 2048, style 256).
        blocks: Blocks per stage in place of those of `depth`; empty = those of `depth`.
        widths: Inner width of every stage's blocks, a quarter of its channels; empty = base_width,
            doubled from stage to stage.
        padding: "symmetric" as in torch, or "same" as in TensorFlow.
        epsilon: Added to the variance by every BatchNorm; 1e-5 in torch, 1e-3 in Keras.
        image_size: Height and width of the square input, in pixels.
        content_stage: Stage (from 1) that is averaged into the content vector.
        content_block: Block of that stage, from 1; 0 = its last.
        style: Where style is read, and how.
        whiten_content: Width of the content vector after whitening; 0 = as it is.
        whiten_style: Width of the style vector after whitening; 0 = as it is.
        whiten_shrinkage: See Whitening.fit.
        pre_activation: Read the residual sums before the ReLU of their block (as the paper's code
            does) rather than after it. The stem is read after its ReLU in any case.
        mean: Subtracted from the channels of images in [0, 1]; empty = nothing.
        std: Divides the channels after that; empty = nothing.
        last_gamma: Initial scale of every block's last BatchNorm. Small values keep an untrained
            network close to its shortcuts, so that its vectors still tell pictures apart.
        dtype: "float32" or "bfloat16" convolutions.
        remat: "none", or "block": in training only the inputs of blocks are kept, and what is
            inside is computed again for the gradient.
    """

    depth: int = 101
    base_width: int = 16
    blocks: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    padding: str = "symmetric"
    epsilon: float = 1e-5
    image_size: int = 128
    content_stage: int = 4
    content_block: int = 0
    style: StyleConfig = dataclasses.field(default_factory=StyleConfig)
    whiten_content: int = 0
    whiten_style: int = 0
    whiten_shrinkage: float = 1e-3
    pre_activation: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    last_gamma: float = 0.1
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self):
        blocks = self.resnet.blocks_per_stage
        stages = len(blocks)
        for name, first, stage in (
            ("content_stage", 1, self.content_stage),
            *(("style.stages", 0, stage) for stage in self.style.stages),
        ):
            if not first <= stage <= stages:
                raise ValueError(f"{name}: got {stage}, expected {first} to {stages}.")
        read = self.blocks_read
        for name, wanted, available in (
            ("content_block", self.content_block, blocks[self.content_stage - 1]),
            (
                "style.blocks",
                self.style.blocks,
                min(read[s] for s in self.style.stages),
            ),
        ):
            if not 0 <= wanted <= available:
                raise ValueError(
                    f"{name}: got {wanted}, expected 0 to {available}, the number of blocks there."
                )
        for name, width in (("content", self.maps_width), ("style", self.style_head_width)):
            if not 0 <= getattr(self, f"whiten_{name}") <= width:
                raise ValueError(
                    f"whiten_{name}: got {getattr(self, f'whiten_{name}')}, expected 0 to {width}, "
                    "the width before"
                )
        if not 0 <= self.whiten_shrinkage <= 1:
            raise ValueError(f"whiten_shrinkage: got {self.whiten_shrinkage}, expected 0 to 1")
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
            widths=self.widths,
            padding=self.padding,
            epsilon=self.epsilon,
            last_gamma=self.last_gamma,
            dtype=self.dtype,
            remat=self.remat,
        )

    @property
    def content_width(self) -> int:
        """Width of the content vector."""
        return self.whiten_content or self.maps_width

    @property
    def style_width(self) -> int:
        """Width of the style vector."""
        return self.whiten_style or self.style_head_width

    @property
    def maps_width(self) -> int:
        """Width of the mean of the content maps, before whitening."""
        return self.resnet.channels(self.content_stage)

    @property
    def style_head_width(self) -> int:
        """Width of what the style head gives, before whitening."""
        channels, blocks = self.resnet.channels, self.blocks_read
        pooled = [self.style.pooled_width(channels(s), blocks[s]) for s in self.style.stages]
        return self.style.projection or sum(pooled)

    @property
    def blocks_read(self) -> tuple[int, ...]:
        """How many maps the stem (place 0: one) and the stages have to read."""
        return (1, *self.resnet.blocks_per_stage)


Stages = tuple[tuple[Float[Array, "B _h _w _c"], ...], ...]
"""The stem's maps (place 0), then for each stage those of its blocks."""


class ImageVectors(NamedTuple):
    """The encoder's two outputs, float32."""

    content: Float[Array, "B C"]
    style: Float[Array, "B S"]


class ImageEncoder(nnx.Module):
    """ResNet with a content head (mean pool) and a style head (see StyleHead).

    Source: UMAIR-FPS, image encoder with dual output.
    """

    def __init__(self, cfg: ImageEncoderConfig, *, rngs: Draws):
        self.cfg = cfg
        self.backbone = ResNet(cfg.resnet, rngs=rngs)
        blocks = cfg.blocks_read
        channels = [cfg.resnet.channels(stage) for stage in range(len(blocks))]
        self.style_head = StyleHead(cfg.style, channels, blocks, rngs=rngs)
        if cfg.whiten_content:
            self.whiten_content = Whitening(cfg.maps_width, cfg.whiten_content)
        if cfg.whiten_style:
            self.whiten_style = Whitening(cfg.style_head_width, cfg.whiten_style)

    def __call__(self, images: Float[Array, "B H W 3"], train: bool = False) -> ImageVectors:
        """Encodes images.

        Args:
            images: float32 or bfloat16 in [0, 1], RGB; mean and std of the configuration are
                applied here.
            train: Use and update batch statistics.

        Returns:
            Content [B, content_width] and style [B, style_width], float32.
        """
        content, (style,) = self.read(self.maps(images, train), train)
        if self.cfg.whiten_content:
            content = self.whiten_content(content)
        if self.cfg.whiten_style:
            style = self.whiten_style(style)
        return ImageVectors(content, style)

    def maps(self, images: Float[Array, "B H W 3"], train: bool = False) -> Stages:
        """The maps that the vectors are read from."""
        cfg = self.cfg
        if cfg.mean:
            images = images - jnp.asarray(cfg.mean, images.dtype)
        if cfg.std:
            images = images / jnp.asarray(cfg.std, images.dtype)
        stem = self.backbone.stem(images, train)
        stages = self.backbone.stages(stem, train)
        if not cfg.pre_activation:
            stages = tuple(tuple(jax.nn.relu(block) for block in blocks) for blocks in stages)
        return ((stem,), *stages)

    def read(
        self, stages: Stages, train: bool = False, across: Bool[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B C"], tuple[Float[Array, "B S"], ...]]:
        """Content of whole pictures, and style of them or of their halves, not whitened.

        Args:
            stages: What `maps` returned.
            train: Use and update the statistics of the style head.
            across: How pictures are cut in halves, see StyleHead; None = not at all.

        Returns:
            Content, and one array of style vectors, or one for each half.
        """
        cfg = self.cfg
        content = semantic_content(stages[cfg.content_stage][cfg.content_block - 1])
        return content, self.style_head(stages, train, across, cfg.resnet.momentum)


def semantic_content(maps: Float[Array, "B H W C"]) -> Float[Array, "B C"]:
    """Global average pool in float32."""
    return maps.astype(jnp.float32).mean((1, 2))


def fit_whitening(encoder: ImageEncoder, vectors: Iterable[ImageVectors]) -> None:
    """Fits what the encoder whitens with.

    Args:
        encoder: Changed in place; nothing happens if it whitens nothing.
        vectors: Batches of what `ImageEncoder.read` gives for a catalogue, as numpy arrays.
    """
    cfg = encoder.cfg
    content, style = Moments(cfg.maps_width), Moments(cfg.style_head_width)
    for batch in vectors:
        content.add(np.asarray(batch.content))
        style.add(np.asarray(batch.style))
    if cfg.whiten_content:
        encoder.whiten_content.fit(content, cfg.whiten_shrinkage)
    if cfg.whiten_style:
        encoder.whiten_style.fit(style, cfg.whiten_shrinkage)


def batch_statistics(
    encoder: ImageEncoder, images: Float[Array, "B H W 3"], head_alone: bool = False
) -> Any:
    """Running statistics as one batch gives them, every layer fed by layers normalised on it.

    Averaging the result over batches calibrates an untrained network: without it the
    running statistics do not fit and the activations of 101 layers explode. What does not run
    along with training (Fixed) is left out.

    Args:
        encoder: Not modified.
        images: As for `ImageEncoder.__call__`.
        head_alone: Only those of the style head, fed by the backbone as it is.

    Returns:
        A pure nested dict of these statistics.
    """
    graph, params, fixed, stats = nnx.split(encoder, nnx.Param, Fixed, nnx.BatchStat)
    keep = encoder.cfg.resnet.momentum
    stats = nnx.to_pure_dict(stats)
    measured = ("style_head",) if head_alone else tuple(stats)
    measured = [name for name in measured if name in stats]
    zeros = {name: jax.tree.map(jnp.zeros_like, stats[name]) for name in measured}
    copy = nnx.merge(graph, params, fixed, stats | zeros)
    copy.read(copy.maps(images, train=not head_alone), train=True)
    _, _, _, stats = nnx.split(copy, nnx.Param, Fixed, nnx.BatchStat)
    stats = nnx.to_pure_dict(stats)
    updated = {name: stats[name] for name in measured}
    # A running average that starts from zero holds (1 - keep) times the batch's statistics.
    return jax.tree.map(lambda x: x / (1 - keep), updated)
