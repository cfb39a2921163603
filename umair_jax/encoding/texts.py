"""The text half of extraction: the text of an item, a vocabulary, vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32
from tokenizers import Tokenizer

from umair_jax.data.tokenizer import encode_texts, load_tokenizer, table_size, train_tokenizer
from umair_jax.encoding.config import ExtractConfig
from umair_jax.encoding.frozen import frozen, mesh_for
from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder


@runtime_checkable
class ItemTexts(Protocol):
    """The columns read here; row 0 is a placeholder."""

    @property
    def title(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def tags(self) -> Sequence[Sequence[str]]: ...  # noqa: D102
    @property
    def description(self) -> Sequence[str]: ...  # noqa: D102


def item_text(items: ItemTexts, row: int, config: ExtractConfig) -> str:
    """The text that stands for an item."""
    parts = {
        "tags": config.tag_separator.join(items.tags[row]),
        "title": items.title[row],
        "description": items.description[row],
    }
    return " ".join(parts[field] for field in config.text_fields if parts[field].strip())


class FrozenTextEncoder:
    """A tokenizer and a text encoder with fixed weights, compiled for this host."""

    def __init__(
        self,
        config: ExtractConfig,
        model: TextEncoder,
        words: Tokenizer,
        mesh: Mesh | None = None,
    ):
        self.config, self.model, self.words = config, model, words
        mesh = mesh or mesh_for(config.text_batch)
        self._call = frozen(model, mesh, lambda model, tokens, mask: model(tokens, mask))

    def encode(self, texts: Sequence[str]) -> tuple[Float32[np.ndarray, "N D"], dict[str, int]]:
        """Vectors of texts, and how many tokens were unknown and texts cut off."""
        encoded = encode_texts(self.words, texts, self.config.max_tokens)
        batch = self.config.text_batch
        vectors = np.zeros((len(texts), self.config.text.vector_width), np.float32)
        for start in range(0, len(texts), batch):
            stop = min(start + batch, len(texts))
            pad = ((0, batch - (stop - start)), (0, 0))
            tokens = np.pad(encoded.tokens[start:stop], pad)
            mask = np.pad(encoded.mask[start:stop], pad)
            vectors[start:stop] = np.asarray(self._call(tokens, mask))[: stop - start]
        return vectors, {"unknown_tokens": encoded.unknown, "truncated_texts": encoded.truncated}


def build(
    items: ItemTexts, rows: Sequence[int], config: ExtractConfig
) -> tuple[TextEncoder, Tokenizer]:
    """The trained encoder with its tokenizer, or a random one with words learned from the items."""
    words = _tokenizer(items, rows, config)
    text_config = dataclasses.replace(config.text, vocabulary=table_size(words))
    text = TextEncoder(text_config, rngs=HostDraws(config.seed))
    if config.text_weights:
        weights.load(text, config.text_weights_file)
    return text, words


def _tokenizer(items: ItemTexts, rows: Sequence[int], config: ExtractConfig) -> Tokenizer:
    if config.tokenizer:
        return load_tokenizer(config.tokenizer_file)
    texts = (
        text
        for row in rows
        for text in (items.title[row], *items.tags[row], items.description[row])
    )
    return train_tokenizer(texts, config.vocabulary_size)
