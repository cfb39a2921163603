"""Batches of interactions with what the encoders read of their items, each item once.

A batch holds fewer distinct items than examples. Only the distinct ones come with pixels and
tokens, and every example says where among them its item is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from umair_jax.data.batches import BatchSource
from umair_jax.data.tokenizer import Ragged

ITEMS, SLOT, PIXELS, TOKENS, LENGTH = "items", "slot", "pixels", "tokens", "length"
_ITEM = "item"
_TOKEN_STEP = 8  # rows of tokens come in multiples of it


@dataclasses.dataclass(frozen=True)
class EncoderInputs:
    """What the encoders read of every item; row 0 is the unknown item.

    Attributes:
        pixels: RGB squares; may be mapped from a file. White where there is no usable picture.
        texts: Tokens of the items' texts.
    """

    pixels: UInt8[np.ndarray, "N1 S S 3"]
    texts: Ragged

    def __post_init__(self):
        if len(self.pixels) != len(self.texts.lengths):
            raise ValueError(
                f"encoder inputs: got pictures of {len(self.pixels)} rows, expected those of the "
                f"{len(self.texts.lengths)} texts"
            )

    @property
    def row_tokens(self) -> int:
        """Length L of a row of tokens: that of the longest text, rounded up."""
        longest = int(self.texts.lengths.max(initial=1))
        return -(-longest // _TOKEN_STEP) * _TOKEN_STEP

    def take(self, rows: Integer[np.ndarray, " U"]) -> dict[str, np.ndarray]:
        """Inputs of some items: "pixels" uint8 [U, S, S, 3], "tokens" int32 [U, L], "length" [U].

        "items" int32 [U] are the rows themselves.
        """
        return {
            ITEMS: rows.astype(np.int32),
            PIXELS: np.asarray(self.pixels[rows]),
            TOKENS: self.texts.padded(rows, self.row_tokens),
            LENGTH: self.texts.lengths[rows],
        }


class DistinctItemSource(BatchSource):
    """Interactions with the encoders' inputs of their items.

    Besides the columns a batch has "slot", int32 [B], the place of each example's item among the
    distinct ones, and for these what EncoderInputs.take gives, with U rows. U is the number of
    distinct items, rounded up to one of four sizes for every doubling, so that few programs are
    compiled. What is beyond them repeats them, so that padding brings in no other picture.
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        inputs: EncoderInputs,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        index: Integer[np.ndarray, " E"] | None = None,
        multiple: int = 1,
    ) -> None:
        """Checks the columns.

        Args:
            columns: As in BatchSource; "item" holds rows of the inputs.
            inputs: What the encoders read.
            batch_size: Global batch size B.
            seed: Of the order.
            shuffle: A new order in each epoch.
            index: As in BatchSource.
            multiple: U is a multiple of it: the devices along the batch. It divides B.

        Raises:
            ValueError: As in BatchSource; or `multiple` does not divide the batch.
        """
        super().__init__(columns, batch_size, seed, shuffle, index)
        if batch_size % multiple:
            raise ValueError(
                f"batch_size: got {batch_size}, expected a multiple of {multiple}, the devices"
            )
        self._inputs, self._multiple = inputs, multiple

    def batch(self, k: int, rows: slice | None = None) -> dict[str, np.ndarray]:
        """As in BatchSource; `rows` is a share of the examples and of the distinct items."""
        return self._with_inputs(super().batch(k), rows)

    def padded_batches(self, rows: slice | None = None) -> Iterator[dict[str, np.ndarray]]:
        """As in BatchSource."""
        return (self._with_inputs(batch, rows) for batch in super().padded_batches())

    def _with_inputs(
        self, batch: dict[str, np.ndarray], rows: slice | None
    ) -> dict[str, np.ndarray]:
        low, high, _ = (rows or slice(None)).indices(self.batch_size)
        items, slot = distinct(batch[_ITEM], self._multiple)
        # The same share of the distinct items as of the examples: hosts have whole devices.
        first, last = (edge * len(items) // self.batch_size for edge in (low, high))
        mine = {name: array[low:high] for name, array in (batch | {SLOT: slot}).items()}
        return mine | self._inputs.take(items[first:last])


def distinct(
    items: Integer[np.ndarray, " B"], multiple: int = 1
) -> tuple[Int32[np.ndarray, " U"], Int32[np.ndarray, " B"]]:
    """The distinct items of a batch, ascending and then repeated, and where each example's is.

    Args:
        items: Item rows.
        multiple: U is a multiple of it; it divides B.

    Example:
        >>> distinct(np.array([7, 3, 7, 7]), 2)
        (array([3, 7], dtype=int32), array([1, 0, 1, 1], dtype=int32))
    """
    found, slot = np.unique(items, return_inverse=True)
    step = max(1, 2 ** ((len(found) - 1).bit_length() - 3))
    step = -(-step // multiple) * multiple
    room = min(-(-len(found) // step) * step, len(items))
    return np.resize(found, room).astype(np.int32), slot.astype(np.int32)
