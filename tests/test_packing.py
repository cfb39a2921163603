"""Rows of several texts: tight, and every token where it belongs."""

import numpy as np

from umair_jax.data.packing import lay_out, pack
from umair_jax.data.tokenizer import Ragged


def ragged(lengths):
    lengths = np.asarray(lengths, np.int32)
    return Ragged(
        tokens=np.arange(1, lengths.sum() + 1, dtype=np.int32),  # no two tokens are the same
        lengths=lengths,
        starts=np.cumsum(lengths, dtype=np.int64) - lengths,
        pad=99,
        unknown=0,
        truncated=0,
    )


def test_packing_is_tight_and_overlaps_nowhere():
    lengths = np.random.default_rng(0).integers(0, 40, 600).astype(np.int32)
    row, offset = pack(lengths, 64)
    taken = np.zeros((row.max() + 1, 64), int)
    for where, start, size in zip(row, offset, lengths, strict=True):
        taken[where, start : start + size] += 1
    assert taken.max() == 1
    assert taken.mean() > 0.99


def test_texts_are_laid_out_where_they_were_packed():
    texts = ragged([2, 3, 1])
    places = np.array([1, -1, 2, 0])
    packed = lay_out(texts, places, np.array([0, 0, 1, 0]), np.array([0, 0, 3, 3]), (2, 5))
    np.testing.assert_array_equal(packed.tokens, [[3, 4, 5, 1, 2], [99, 99, 99, 6, 99]])
    np.testing.assert_array_equal(packed.slot, [[0, 0, 0, 3, 3], [-1, -1, -1, 2, -1]])
    np.testing.assert_array_equal(packed.position, [[0, 1, 2, 0, 1], [0, 0, 0, 0, 0]])
