"""Both encoders with their tokenizer: built, kept on disk, run over batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8
from tokenizers import Tokenizer

from umair_jax.encoding import images, text_model, texts
from umair_jax.encoding.config import ExtractConfig
from umair_jax.encoding.frozen import mesh_for
from umair_jax.encoding.images import FrozenImageEncoder, Pictures
from umair_jax.encoding.text_model import TextModel
from umair_jax.encoding.texts import FrozenTextEncoder, ItemTexts
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder

IMAGE = "image_encoder.safetensors"
FILES = (IMAGE, *text_model.FILES)


@runtime_checkable
class Catalogue(Pictures, Protocol):
    """What extraction needs of a data set."""

    @property
    def catalogue_fingerprint(self) -> str:
        """Changes when any text or picture changes."""
        ...

    @property
    def items(self) -> ItemTexts:
        """Texts by row."""
        ...


class Encoders:
    """Image encoder, tokenizer and text encoder with fixed weights, compiled for this host."""

    def __init__(
        self, config: ExtractConfig, image: ImageEncoder, text: TextEncoder, words: Tokenizer
    ):
        self.config, self.image, self.text, self.words = config, image, text, words
        mesh = mesh_for(config.image_batch, config.text_batch)
        self.pictures = FrozenImageEncoder(config, image, mesh)
        self._texts = FrozenTextEncoder(
            text, words, max_tokens=config.max_tokens, rows=config.text_batch, mesh=mesh
        )

    def start_images(self, images: UInt8[np.ndarray, "B S S 3"]) -> Any:
        """Begins to encode a full batch; returns device arrays (content, style)."""
        return self.pictures.start(images)

    def encode_texts(
        self, texts: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "N D"], dict[str, int]]:
        """Vectors of texts, and how many tokens were unknown and texts cut off."""
        return self._texts.encode(texts)

    def digest(self) -> str:
        """Changes with any weight, any setting of the encoders and the vocabulary."""
        return "-".join(
            (
                weights.digest(self.image, self.config.image)[:16],
                weights.digest(self.text, self.text.cfg)[:16],
            )
        )


def build(catalogue: Catalogue, rows: Sequence[int], config: ExtractConfig) -> Encoders:
    """Trained encoders where the configuration names weights, else random calibrated ones.

    Args:
        catalogue: Its texts give the vocabulary, a sample of its pictures the statistics.
        rows: All rows that hold items.
        config: What to build.
    """
    text, words = texts.build(catalogue.items, rows, config)
    image = images.build(pictures_of(catalogue), rows, config)
    return Encoders(config, image, text, words)


def pictures_of(catalogue: Catalogue) -> Pictures:
    """The catalogue's pictures alone, where it can give them: what is sent to processes."""
    return getattr(catalogue, "pictures", catalogue)


def save(encoders: Encoders, folder: str | os.PathLike[str]) -> None:
    """Writes tokenizer and weights, so that later items go through the very same encoders."""
    weights.save(encoders.image, Path(folder) / IMAGE)
    text, longest = encoders.text, encoders.config.max_tokens
    written = TextModel(text.cfg, weights.flatten(text), encoders.words, longest)
    text_model.write(written, folder)


def load(folder: str | os.PathLike[str], config: ExtractConfig) -> Encoders:
    """Reads encoders that `save` wrote.

    Raises:
        ValueError: A file is missing, or does not fit the configuration.
    """
    found = text_model.read(folder)
    image = ImageEncoder(config.image, rngs=HostDraws(config.seed))
    weights.load(image, Path(folder) / IMAGE)
    return Encoders(config, image, found.encoder(config.text, "config.extract.text"), found.words)
