"""The one hash of the project: XXH3-64, seed 0, of the UTF-8 bytes.

Rows of embedding tables follow from it, so it must never change: the same text gives the same row
on every platform, Python version and day. Integers are hashed as their decimal text, so that an id
means the same whether a source stored it as a number or as text. Nothing is normalised here: two
texts that differ in one byte are two values.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash
from jaxtyping import Int32

MAX_SIZE = 2**31 - 1


def hash64(value: str | int) -> int:
    """Hashes a text or an id to 64 bits.

    Args:
        value: Text, hashed as its UTF-8 bytes, or an integer, hashed as its decimal text.

    Returns:
        An integer in 0 .. 2**64 - 1: XXH3-64 with seed 0.

    Raises:
        ValueError: The text cannot be written as UTF-8 (it holds a lone surrogate).

    >>> hex(hash64(""))
    '0x2d06800538d394c2'
    >>> hash64(42) == hash64("42")
    True
    """
    try:
        return xxhash.xxh3_64_intdigest(str(value).encode("utf-8"), seed=0)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"got the text {str(value)!r}, which is not valid Unicode; expected text that can be "
            "written as UTF-8; read the file with the encoding that it was written in"
        ) from error


def bucket(value: str | int, size: int) -> int:
    """Maps a text or an id to one of `size` buckets: hash64(value) modulo size.

    Args:
        value: Text or integer, as for hash64.
        size: Number of buckets, 1 .. 2**31 - 1.

    Returns:
        The bucket, 0 .. size - 1.

    Raises:
        ValueError: The size is out of range, or the text is not valid Unicode.
    """
    _check_size(size)
    return hash64(value) % size


def buckets(values: Iterable[str | int], size: int) -> Int32[np.ndarray, " N"]:
    """Maps many values at once; see bucket.

    Args:
        values: Texts or integers.
        size: Number of buckets, 1 .. 2**31 - 1.

    Returns:
        One bucket per value, int32, 0 .. size - 1.
    """
    _check_size(size)
    return np.fromiter((hash64(value) % size for value in values), dtype=np.int32)


def _check_size(size: int) -> None:
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"got {size} buckets; expected 1 to {MAX_SIZE}; choose a size in between")
