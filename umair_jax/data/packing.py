"""Short texts packed into rows of one length, so that little of them is padding."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Integer

from umair_jax.data.tokenizer import Ragged


class Packed(NamedTuple):
    """Rows of tokens.

    Attributes:
        tokens: Their ids.
        slot: The text that each is of; -1 = padding.
        position: Its place in that text, from 0.
    """

    tokens: Int32[np.ndarray, "R W"]
    slot: Int32[np.ndarray, "R W"]
    position: Int32[np.ndarray, "R W"]


def pack(
    lengths: Int32[np.ndarray, " S"], width: int
) -> tuple[Int32[np.ndarray, " S"], Int32[np.ndarray, " S"]]:
    """Puts runs into as few rows as best-fit-decreasing finds, at most 11/9 of the fewest.

    Args:
        lengths: Tokens of each run, at most `width`; runs of length 0 take no room.
        width: Tokens of a row.

    Returns:
        Row and offset of each run.

    Example:
        >>> pack(np.array([3, 5, 2]), 8)
        (array([0, 0, 1], dtype=int32), array([5, 0, 0], dtype=int32))
    """
    row, offset = np.zeros(len(lengths), np.int32), np.zeros(len(lengths), np.int32)
    with_room: list[list[int]] = [[] for _ in range(width + 1)]  # rows by what is free in them
    rows = 0
    sizes = lengths.tolist()
    for run in np.argsort(-lengths, kind="stable").tolist():
        size = sizes[run]
        if not size:
            break
        free = next((free for free in range(size, width) if with_room[free]), width)
        if free < width:
            chosen = with_room[free].pop()
        else:
            chosen, rows = rows, rows + 1
        row[run], offset[run] = chosen, width - free
        with_room[free - size].append(chosen)
    return row, offset


def lay_out(
    texts: Ragged,
    places: Integer[np.ndarray, " S"],
    row: Integer[np.ndarray, " S"],
    offset: Integer[np.ndarray, " S"],
    shape: tuple[int, int],
) -> Packed:
    """The rows that hold some texts, where `pack` put them.

    Args:
        texts: All texts.
        places: Which of them; -1 = none, its slot stays empty. The slot of a text is where it
            stands here.
        row: The row of each.
        offset: Where in its row each begins.
        shape: Number of rows R, and their width W in tokens.
    """
    lengths = np.where(places >= 0, texts.lengths[places], 0)
    slot = np.repeat(np.arange(len(places), dtype=np.int32), lengths)
    position = np.arange(len(slot)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    there = (row.astype(np.int64) * shape[1] + offset)[slot] + position
    tokens = texts.tokens[texts.starts[places][slot] + position]
    found = []
    for fill, values in ((texts.pad, tokens), (-1, slot), (0, position)):
        flat = np.full(shape[0] * shape[1], fill, np.int32)
        flat[there] = values
        found.append(flat.reshape(shape))
    return Packed(*found)
