"""Columns of cells, given as the bytes of their text, to texts, numbers, times and labels.

Each function returns the values and says which cells it could not use; nobody is warned here, since
only the caller knows the rows. White space around a cell means nothing.
"""

# pyright: reportAttributeAccessIssue=false
# Arrow makes its compute functions when it is imported; no type checker sees them.

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int8, Int64

SEPARATORS = ("|", ";", ",")
LAST_SECOND = 4_102_444_800  # 2100-01-01; what lies after it is milliseconds
_LARGEST = 2**63 - 1024  # the largest float64 that fits an int64
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SECONDS = r"^\d{1,18}(\.\d*)?$"
# Arrow reads exactly these, all at once; the rest of ISO 8601 is left to Python.
_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?)?$"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def texts(column: pa.Array) -> tuple[pa.StringArray, Bool[np.ndarray, " R"]]:
    """Decodes UTF-8; wrong bytes become U+FFFD.

    Args:
        column: Binary cells.

    Returns:
        Texts, empty where missing, and which of them had wrong bytes.
    """
    wrong = np.zeros(len(column), bool)
    try:
        decoded = column.cast(pa.string())
    except pa.ArrowInvalid:
        decoded, wrong = _replaced(column)
    decoded = pc.fill_null(decoded, "")
    return pc.utf8_trim_whitespace(decoded), wrong


def _replaced(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    cells = column.to_pylist()
    decoded = [None if cell is None else cell.decode("utf-8", "replace") for cell in cells]
    wrong = [
        text is not None and text.encode() != cell
        for cell, text in zip(cells, decoded, strict=True)
    ]
    return pa.array(decoded, pa.string()), np.array(wrong, bool)


def tags(column: pa.Array) -> tuple[list[tuple[str, ...]], Bool[np.ndarray, " R"]]:
    """Reads lists of tags.

    Args:
        column: Lists of binary, taken as they are; or binary cells, see split_tags.

    Returns:
        Tags per cell, none of them empty, and which cells had bytes that are no UTF-8.
    """
    if not pa.types.is_list(column.type):
        decoded, wrong = texts(column)
        return [split_tags(text) for text in decoded.to_pylist()], wrong
    column = pc.fill_null(column, []) if column.null_count else column
    flat, bad = texts(column.flatten())
    words, ends = flat.to_pylist(), np.cumsum(pc.list_value_length(column).to_numpy())
    begins = np.concatenate([[0], ends[:-1]])
    lists = [tuple(filter(None, words[a:b])) for a, b in zip(begins, ends, strict=True)]
    owners = np.repeat(np.arange(len(column)), ends - begins)
    return lists, np.isin(np.arange(len(column)), owners[bad])


def split_tags(text: str) -> tuple[str, ...]:
    """Splits a text at `|`; where there is none, at `;`; where there is none either, at `,`.

    >>> split_tags("sea, sand | sun")
    ('sea, sand', 'sun')
    """
    separator = next((mark for mark in SEPARATORS if mark in text), "|")
    return tuple(filter(None, map(str.strip, text.split(separator))))


def numbers(
    column: pa.StringArray,
) -> tuple[Int64[np.ndarray, " R"], Bool[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Reads whole numbers.

    Returns:
        Numbers, -1 where the text is empty or of no use; which texts are no whole number of 64
        bits; and which are below zero.
    """
    values = np.full(len(column), -1, np.int64)
    digits = pc.match_substring_regex(column, r"^-?\d{1,18}$")
    _put(values, column, digits, _whole)
    wrong = np.zeros(len(column), bool)
    rest = ~_mask(digits) & ~_mask(pc.equal(column, ""))
    for k in np.flatnonzero(rest).tolist():
        text = column[k].as_py()
        number = float(text) if _FLOAT.fullmatch(text) else 0.5
        if number.is_integer() and abs(number) <= _LARGEST:
            values[k] = int(number)
        else:
            wrong[k] = True
    negative = (values < 0) & ~wrong & ~_mask(pc.equal(column, ""))
    values[negative] = -1
    return values, wrong, negative


def times(column: pa.StringArray) -> tuple[Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Reads points in time: unix seconds, or ISO 8601 (without a zone: UTC), from 1970 to 2099.

    Returns:
        Unix seconds, rounded down, -1 where the text is empty or of no use; and which texts are of
        no use, an empty one not counted.
    """
    values = np.full(len(column), -1, np.int64)
    seconds = pc.match_substring_regex(column, _SECONDS)
    _put(values, column, seconds, _whole_seconds)
    if not pc.all(seconds).as_py():
        regular = pc.match_substring_regex(column, _ISO)
        try:
            _put(values, column, regular, _regular_iso)
        except pa.ArrowInvalid:  # a 30th of February: which one, only Python says
            regular = pc.and_(regular, pa.scalar(False))
        rest = pc.invert(pc.or_(seconds, regular))
        _put(values, column, rest, _any_iso)
    values[(values < 0) | (values >= LAST_SECOND)] = -1
    return values, (values < 0) & ~_mask(pc.equal(column, ""))


def labels(column: pa.StringArray) -> tuple[Int8[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Reads 0 or 1, also written 0.0 or 1.0, false or true; everything else is wrong."""
    place = pc.index_in(pc.ascii_lower(column), value_set=pa.array(list(_LABELS)))
    place = pc.fill_null(place, -1).to_numpy()
    values = np.array([*_LABELS.values(), 0], np.int8)[place]  # -1 is the last one
    return values, place < 0


def _mask(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


def _put(
    values: np.ndarray,
    column: pa.StringArray,
    chosen: pa.Array,
    convert: Callable[[pa.StringArray], np.ndarray],
) -> None:
    """Converts the chosen cells, if there are any, into their places."""
    mask = _mask(chosen)
    if mask.all():
        values[:] = convert(column)
    elif mask.any():
        values[mask] = convert(column.filter(chosen))


def _whole(column: pa.StringArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()


def _whole_seconds(column: pa.StringArray) -> np.ndarray:
    return _whole(_without_fraction(column))


def _without_fraction(column: pa.StringArray) -> pa.StringArray:
    if not pc.any(pc.match_substring(column, ".")).as_py():
        return column
    return pc.replace_substring_regex(column, r"\.\d*", "")


def _regular_iso(column: pa.StringArray) -> np.ndarray:
    column = _without_fraction(column)
    zoned = pc.match_substring_regex(column, r"(Z|:\d\d[+-]\d\d:\d\d)$")
    column = pc.if_else(zoned, column, pc.binary_join_element_wise(column, "Z", ""))
    return column.cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_numpy()


def _any_iso(column: pa.StringArray) -> np.ndarray:
    distinct = column.dictionary_encode()
    seconds = [_iso(text) for text in distinct.dictionary.to_pylist()]
    return np.array(seconds, np.int64)[distinct.indices.to_numpy()]


def _iso(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC)
        return math.floor((moment - _EPOCH).total_seconds())
    except (ValueError, OverflowError):
        return -1
