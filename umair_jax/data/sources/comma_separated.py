"""Cuts comma-separated values into blocks of whole records and parses them, broken ones too.

Arrow parses a block at once. Where a quote was opened and never closed it would swallow other
records up to the next quote: such a block is parsed again, line by line.
"""

# pyright: reportAttributeAccessIssue=false
# Arrow makes its compute functions when it is imported; no type checker sees them.

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

BLOCK_BYTES = 16 * 2**20
LARGEST_BLOCK_BYTES = 4 * BLOCK_BYTES
_LONGEST_HEADER = 2**20
_LINES_OF_A_RECORD = 1_000


def header(path: Path, file: BinaryIO) -> list[str]:
    """Reads the names of the columns, the first line of a file.

    Raises:
        ValueError: It is not UTF-8 but UTF-16 or something binary.
    """
    line = file.readline(_LONGEST_HEADER)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise ValueError(f"{path}: got no UTF-8 in the header; expected UTF-8; save it as that")
    text = line.decode("utf-8-sig", "replace")
    with contextlib.suppress(csv.Error):
        return [name.strip() for name in next(csv.reader([text]), [])]
    return [text.strip()]


def blocks(file: BinaryIO, quotes: bool) -> Iterator[bytes]:
    """The rest of a file in pieces that end where a line ends.

    Args:
        file: Opened for reading bytes.
        quotes: Whether a line that ends within quotes goes on.
    """
    rest = b""
    while data := file.read(BLOCK_BYTES):
        rest += data
        if end := _end_of_records(rest, quotes):
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _end_of_records(data: bytes, quotes: bool) -> int:
    end = data.rfind(b"\n") + 1
    odd = quotes and data.count(b'"', 0, end) % 2
    while end and odd:
        before = data.rfind(b"\n", 0, end - 1) + 1
        odd = (odd + data.count(b'"', before, end)) % 2
        end = before
    if not end and len(data) > LARGEST_BLOCK_BYTES:
        # A quote that never ends, or a line without end: parsed as it is, and counted.
        end = data.rfind(b"\n") + 1 or len(data)
    return end


def parse(block: bytes, width: int, oneline: list[int]) -> tuple[pa.Table, dict[int, bytes]]:
    """Parses a block.

    Args:
        block: Whole records, without the header.
        width: Number of columns.
        oneline: Which of them never hold a line break.

    Returns:
        The records, with columns "0", "1", ... of bytes; and the text of what is no record, by
        its position among all rows of the block.
    """
    unreadable: dict[int, bytes] = {}

    def skip(row: pa.csv.InvalidRow) -> str:
        unreadable[row.number - 1] = row.text.encode("utf-8")
        return "skip"

    names = [str(k) for k in range(width)]
    with contextlib.suppress(pa.ArrowInvalid, UnicodeDecodeError):
        block.decode("utf-8")  # Arrow cannot hand over an unreadable row that is not UTF-8.
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
            pa.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
            ),
        )
        # A quote that is opened and not closed swallows lines up to the next quote.
        many = any(b"\n" in text for text in unreadable.values())
        if b'"' in block:
            many |= any(_has_newline(column) for column in table.columns)
        if not many:
            return table, unreadable
    return _parse_by_line(block, width, set(oneline))


def _has_newline(column: pa.ChunkedArray) -> bool:
    return bool(pc.any(pc.match_substring(column, "\n")).as_py())


def _parse_by_line(
    block: bytes, width: int, oneline: set[int]
) -> tuple[pa.Table, dict[int, bytes]]:
    """As parse, slowly: a line whose quote swallows others is unreadable, the others are not."""
    # Every byte is a character here, so that nothing is lost on the way.
    lines = re.findall("[^\n]*\n|[^\n]+", block.decode("latin-1"))
    records: list[list[str]] = []
    unreadable: dict[int, bytes] = {}
    k = number = 0
    while k < len(lines):
        cells, used = _record(lines, k, width, oneline)
        if cells is None:
            unreadable[number] = lines[k].rstrip("\r\n").encode("latin-1")
        else:
            records.append(cells)
        k += used
        number += 1
    columns = [
        pa.array([cells[i].encode("latin-1") for cells in records], pa.binary())
        for i in range(width)
    ]
    return pa.table(columns, names=[str(i) for i in range(width)]), unreadable


def _record(
    lines: list[str], k: int, width: int, oneline: set[int]
) -> tuple[list[str] | None, int]:
    """The record that begins with line k, None if there is none, and how many lines it takes."""
    with contextlib.suppress(csv.Error, StopIteration):
        cells = next(csv.reader(lines[k : k + 1])) or [""] * width
        # A cell with a line break in a record of one line was never closed.
        if len(cells) == width and not any("\n" in cell for cell in cells):
            return cells, 1
    with contextlib.suppress(csv.Error, StopIteration):
        rest = (lines[i] for i in range(k, min(len(lines), k + _LINES_OF_A_RECORD)))
        reader = csv.reader(rest, strict=True)
        cells = next(reader)
        if len(cells) == width and not any("\n" in cells[i] for i in oneline):
            return cells, reader.line_num
    return None, 1
