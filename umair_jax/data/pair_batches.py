"""Batches of text pairs, packed: several short texts share a row, so that little is padding."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from umair_jax.data import packing
from umair_jax.data.batches import BatchSource
from umair_jax.data.tokenizer import Ragged

FIRST, SECOND, NEGATIVE = TEXTS = ("first", "second", "negative")
TOKENS, SLOT, POSITION = packing.Packed._fields
_ROWS = 8  # packed rows come in multiples of this, where the batch is one: so devices can share


class PairSource(BatchSource):
    """Pairs of texts as token ids.

    Of the global batch's texts, each is a run of tokens in one of N rows of `row_tokens` tokens. A
    batch holds "tokens", "slot" and "position", int32 [B, N * row_tokens / B], which reshape to
    [N, row_tokens]. The slot of a token says whose it is: the first text of example i is slot i,
    its partner B + i, its negative 2 B + i; padding has slot -1. Besides, "first" and "second" (and
    "negative", -1 = none, where any pair has one) are the places of the texts, int32 [B], and
    "weight" is there as in every batch.

    The order of an epoch is drawn by `mix`. All hosts pack the whole batch and take their share.
    """

    def __init__(
        self,
        texts: Ragged,
        first: Int32[np.ndarray, " E"],
        second: Int32[np.ndarray, " E"],
        batch_size: int,
        *,
        negative: Int32[np.ndarray, " E"] | None = None,
        group: Int32[np.ndarray, " E"] | None = None,
        mix: Sequence[float] = (1.0,),
        row_tokens: int = 64,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        """Checks the columns and counts the examples of an epoch.

        Args:
            texts: All texts.
            first: Places of the pairs' first texts.
            second: Places of their partners.
            batch_size: Global batch size B.
            negative: Places of texts that are close and yet wrong; -1 = none.
            group: The kind of each pair, a place in `mix`; None = all of kind 0.
            mix: How often an epoch has the pairs of each kind.
            row_tokens: Length of a packed row; no text may be longer.
            seed: Of the order.
            shuffle: False serves each pair once, in the given order.

        Raises:
            ValueError: As in BatchSource; a text longer than a row; or `mix` takes no pair.
        """
        columns = {FIRST: first, SECOND: second}
        if negative is not None and (negative >= 0).any():
            columns[NEGATIVE] = negative
        super().__init__(columns, batch_size, seed, shuffle)
        longest = int(texts.lengths.max(initial=1))
        if longest > row_tokens:
            raise ValueError(
                f"row_tokens: got {row_tokens}, expected at least {longest}, the longest text"
            )
        self._texts, self._row_tokens = texts, row_tokens
        self._epochs: dict[int, np.ndarray] = {}
        self._turn = threading.Lock()
        if shuffle:
            group = np.zeros(len(first), np.int32) if group is None else group
            self._kinds = [np.flatnonzero(group == kind) for kind in range(len(mix))]
            self._counts = [round(m * len(k)) for m, k in zip(mix, self._kinds, strict=True)]
            self._examples = sum(self._counts)
            if not self._examples:
                raise ValueError(f"no examples: mix {tuple(mix)} takes none of {len(first)} pairs")

    def batch(self, k: int, rows: slice | None = None) -> dict[str, np.ndarray]:
        """As in BatchSource."""
        return _share(super().batch(k), rows)

    def padded_batches(self, rows: slice | None = None) -> Iterator[dict[str, np.ndarray]]:
        """As in BatchSource."""
        return (_share(batch, rows) for batch in super().padded_batches())

    def _permutation(self, epoch: int) -> np.ndarray:
        with self._turn:
            if epoch not in self._epochs:
                while len(self._epochs) > 1:  # a batch may straddle two epochs
                    del self._epochs[min(self._epochs)]
                self._epochs[epoch] = self._drawn(epoch)
            return self._epochs[epoch]

    def _drawn(self, epoch: int) -> np.ndarray:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        drawn = [
            # More than all of a kind: all of them several times over, and then some.
            np.resize(generator.permutation(kind), count)
            for kind, count in zip(self._kinds, self._counts, strict=True)
        ]
        return generator.permutation(np.concatenate(drawn))

    def _gather(self, order: np.ndarray) -> dict[str, np.ndarray]:
        batch = super()._gather(order)
        places = np.concatenate([batch[name] for name in self.columns])
        lengths = np.where(places >= 0, self._texts.lengths[places], 0)
        width, size = self._row_tokens, len(order)
        row, offset = packing.pack(lengths, width)
        rows = _rows(int(row.max(initial=0)) + 1, size, width)
        packed = packing.lay_out(self._texts, places, row, offset, (rows, width))
        return batch | {name: array.reshape(size, -1) for name, array in packed._asdict().items()}


def _rows(needed: int, size: int, width: int) -> int:
    # [B, ...] must hold them; and where it costs little, several devices share them evenly.
    least = size // math.gcd(size, width)
    even = math.lcm(least, math.gcd(size, _ROWS))
    multiple = even if even * _ROWS <= max(needed, least * _ROWS) else least
    return -(-needed // multiple) * multiple


def padding_share(batches: Iterable[Mapping[str, np.ndarray]]) -> float:
    """Share of padding among the tokens of batches of pairs, in [0, 1]."""
    padded = total = 0
    for batch in batches:
        padded += int((batch[SLOT] < 0).sum())
        total += batch[SLOT].size
    return padded / total


def _share(batch: dict[str, np.ndarray], rows: slice | None) -> dict[str, np.ndarray]:
    return batch if rows is None else {name: array[rows] for name, array in batch.items()}
