"""The image encoder with what its pretext tasks need: heads that are dropped afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Bool, Float

from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.layers import Dense, dropout


class TaggerOutput(NamedTuple):
    """What a batch of pictures gives, float32.

    Attributes:
        content: Content vectors.
        styles: Style vectors of the whole pictures, or of either half.
        tags: Logits of the tags.
        popularity: Column -> logits of its buckets.
    """

    content: Float[Array, "B C"]
    styles: tuple[Float[Array, "B S"], ...]
    tags: Float[Array, "B T"]
    popularity: dict[str, Float[Array, "B _k"]]


@dataclasses.dataclass(frozen=True)
class TaggerConfig:
    """The encoder and its heads.

    Attributes:
        image: The encoder.
        dropout: Share of the content vector's numbers that training hides from the heads.
    """

    image: ImageEncoderConfig = dataclasses.field(default_factory=ImageEncoderConfig)
    dropout: float = 0.0

    def __post_init__(self):
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: got {self.dropout}, expected 0 to below 1")


class ImageTagger(nnx.Module):
    """Linear heads on the content vector: one logit a tag, one soft-max a popularity column.

    Source: UMAIR-FPS, pretext tasks of the image encoder (tags of the artist; buckets of
    bookmarks, views and sanity level).
    """

    def __init__(
        self, cfg: TaggerConfig, tags: int, popularity: Mapping[str, int], *, rngs: nnx.Rngs
    ):
        """Builds encoder and heads.

        Args:
            cfg: Options.
            tags: Number of tags T.
            popularity: Column -> number of buckets.
            rngs: nnx.Rngs of the initial weights.
        """
        self.cfg = cfg
        self.popularity = tuple(popularity)
        self.encoder = ImageEncoder(cfg.image, rngs=rngs)
        width = cfg.image.maps_width
        self.tags = Dense(width, tags, rngs=rngs)
        for name, buckets in popularity.items():
            setattr(self, f"popularity_{name}", Dense(width, buckets, rngs=rngs))

    def __call__(
        self,
        images: Float[Array, "B H W 3"],
        train: bool = False,
        across: Bool[Array, " B"] | None = None,
        key: Array | None = None,
    ) -> TaggerOutput:
        """Encodes pictures and predicts what is known about them.

        Args:
            images: float in [0, 1], RGB.
            train: Use and update batch statistics, and drop out.
            across: Read the styles of halves, see StyleHead; None = of the whole.
            key: Of the dropout.
        """
        content, styles = self.encoder.read(self.encoder.maps(images, train), train, across)
        seen = dropout(content, self.cfg.dropout, key) if train else content
        popularity = {name: getattr(self, f"popularity_{name}")(seen) for name in self.popularity}
        return TaggerOutput(content, styles, self.tags(seen), popularity)
