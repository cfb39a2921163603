"""The text half of extraction: the text of an item, a vocabulary, vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Integer
from tokenizers import Tokenizer

from umair_jax.data import packing
from umair_jax.data.tokenizer import encode_ragged, table_size, train_tokenizer
from umair_jax.encoding import text_model
from umair_jax.encoding.config import ExtractConfig
from umair_jax.encoding.frozen import frozen, mesh_for
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder
from umair_jax.models.transformer import Packing

# A call has room for so many texts: one for every four tokens, marks included.
_TOKENS_A_TEXT = 4
_ROW_STEP = 32  # tokens; rows come in multiples of it, so that few programs are compiled


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
    """A tokenizer and a text encoder with fixed weights, compiled for this host.

    Texts share rows, so that a mixture of short and long ones costs little more than its tokens.
    """

    def __init__(
        self,
        model: TextEncoder,
        words: Tokenizer,
        *,
        max_tokens: int,
        rows: int = 64,
        mesh: Mesh | None = None,
    ):
        """Places the weights.

        Args:
            model: The encoder.
            words: Its tokenizer.
            max_tokens: Longest text, marks included; the rest is cut off.
            rows: Rows per call, over all devices of the mesh.
            mesh: See `frozen`; None = as many of this host's devices as divide `rows`.
        """
        self.model, self.words = model, words
        self._max_tokens, self._rows = max_tokens, rows
        mesh = mesh or mesh_for(rows)
        self._devices = mesh.size

        def call(model, tokens, slot, position):
            # One more: the last vector is that of a text without tokens.
            return model.packed(tokens, Packing(slot, position), _room(*tokens.shape) + 1)

        self._call = frozen(model, mesh, call)

    def encode(self, texts: Sequence[str]) -> tuple[Float32[np.ndarray, "N D"], dict[str, int]]:
        """Vectors of texts, and how many tokens were unknown and texts cut off."""
        encoded = encode_ragged(self.words, texts, self._max_tokens)
        vectors = np.zeros((len(texts), self.model.cfg.vector_width), np.float32)
        longest = int(encoded.lengths.max(initial=1))
        width = min(self._max_tokens, -(-longest // _ROW_STEP) * _ROW_STEP)
        row, offset = packing.pack(encoded.lengths, width)
        empty = np.flatnonzero(encoded.lengths == 0)
        running: list[tuple[np.ndarray, Any]] = []
        for places, first, rows in self._calls(np.where(encoded.lengths > 0, row, -1), width):
            where = (row[places] - first, offset[places])
            packed = packing.lay_out(encoded, places, *where, (rows, width))
            running.append((places, self._call(*packed)))
            if len(running) > 1:  # one call is computed while the next is laid out
                _collect(vectors, empty, *running.pop(0))
        _collect(vectors, empty, *running.pop())
        return vectors, {"unknown_tokens": encoded.unknown, "truncated_texts": encoded.truncated}

    def _calls(
        self, row: Integer[np.ndarray, " N"], width: int
    ) -> Iterator[tuple[np.ndarray, int, int]]:
        """The texts of each call, its first row, and how many rows it has; at least one call."""
        order = np.argsort(row, kind="stable")[(row < 0).sum() :]
        ends = np.searchsorted(row[order], np.arange(row.max(initial=-1) + 2))
        first, used = 0, len(ends) - 1
        while first < max(used, 1):
            room = _room(self._rows, width)
            last = int(np.searchsorted(ends, ends[first] + room, "right")) - 1
            last = min(last, first + self._rows)
            rows, texts = self._rows, ends[last] - ends[first]
            # A half-empty call is made with fewer rows: the same few programs for any number.
            while (
                rows % (2 * self._devices) == 0
                and last - first <= rows // 2
                and texts <= _room(rows // 2, width)
            ):
                rows //= 2
            yield order[ends[first] : ends[last]], first, rows
            first = max(last, first + 1)


def _room(rows: int, width: int) -> int:
    """How many texts a call takes; those of any one row, at the least."""
    return max(rows * width // _TOKENS_A_TEXT, width)


def _collect(vectors: np.ndarray, empty: np.ndarray, places: np.ndarray, computed: Any) -> None:
    found = np.asarray(computed)
    vectors[places] = found[: len(places)]
    vectors[empty] = found[-1]


def build(
    items: ItemTexts, rows: Sequence[int], config: ExtractConfig
) -> tuple[TextEncoder, Tokenizer]:
    """The trained encoder with its tokenizer, or a random one with words learned from the items."""
    if config.text_weights:
        found = text_model.read(config.text_weights)
        return found.encoder(config.text, "config.extract.text"), found.words
    texts = (
        text
        for row in rows
        for text in (items.title[row], *items.tags[row], items.description[row])
    )
    words = train_tokenizer(texts, config.vocabulary_size)
    shape = dataclasses.replace(config.text, vocabulary=table_size(words))
    return TextEncoder(shape, rngs=HostDraws(config.seed)), words
