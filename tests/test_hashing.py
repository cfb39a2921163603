import numpy as np
import pytest

from umair_jax.data import hashing

# Rows of trained tables depend on these, so they may never change.
PINNED = {
    "": 0x2D06800538D394C2,  # also the published vector of XXH3-64
    "a": 0xE6C632B61E964E1F,
    "42": 0x1217CB28C0EF2191,
    "xxhash": 0xAA4C2B42AE6B13DE,
    "user-0001": 0x529A2965EFC2FE1A,
    "風景": 0xDDBA5A633C85D0FC,
    "x" * 300: 0xA5D1B4607DC83554,
}


def test_known_vectors():
    for text, value in PINNED.items():
        assert hashing.hash64(text) == value


def test_integers_hash_as_their_decimal_text():
    assert hashing.hash64(42) == hashing.hash64("42")
    assert hashing.hash64(-1) == hashing.hash64("-1")
    assert hashing.hash64("042") != hashing.hash64(42)


def test_many_equals_one_by_one():
    values = ["a", "b", "", 7, "風景"]
    got = hashing.buckets(values, 97)
    assert got.dtype == np.int32
    assert got.tolist() == [hashing.bucket(v, 97) for v in values]


def test_buckets_are_spread_evenly():
    counts = np.bincount(hashing.buckets((f"user-{k:04d}" for k in range(100_000)), 100))
    assert counts.min() > 850
    assert counts.max() < 1150


@pytest.mark.parametrize("size", [0, -1, 2**31])
def test_size_out_of_range(size):
    with pytest.raises(ValueError, match="buckets; expected 1 to"):
        hashing.bucket("a", size)


def test_lone_surrogate_is_refused():
    with pytest.raises(ValueError, match="not valid Unicode"):
        hashing.hash64("\ud800")
