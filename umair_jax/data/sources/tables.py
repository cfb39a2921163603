"""Tables of a user's own data in pieces: Parquet, CSV and JSON lines become columns of bytes.

Whatever the format, a cell is the bytes of its text (null where missing) and `cells` makes of it
what it should be. Rows that are no records are counted; a file that is no table stops the run.
"""

# pyright: reportAttributeAccessIssue=false
# Arrow makes its compute functions when it is imported; no type checker sees them.

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from umair_jax.data.report import Report
from umair_jax.data.sources.cells import split_tags
from umair_jax.data.sources.comma_separated import blocks, header, parse

SUFFIXES = (".parquet", ".csv", ".jsonl")
ROWS_AT_ONCE = 65_536  # of Parquet and JSON lines


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The columns to read of a table.

    Attributes:
        required: Names that must be there.
        optional: Names that may be there.
        lists: Which of them may hold lists of texts.
        multiline: In which of them a CSV cell may go over several lines.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    lists: tuple[str, ...] = ()
    multiline: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.required + self.optional


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive records of a table.

    Attributes:
        row: int64 [R], their rows in the file, as people count them; see data/report.
        columns: The wanted columns that are there, by name: binary, or lists of binary.
    """

    row: np.ndarray
    columns: dict[str, pa.Array]


def find(folder: Path, stem: str) -> Path:
    """The one table of a folder with this name.

    Raises:
        ValueError: There is none, or there are several.
    """
    there = [folder / f"{stem}{suffix}" for suffix in SUFFIXES]
    there = [path for path in there if path.is_file()]
    names = ", ".join(f"{stem}{suffix}" for suffix in SUFFIXES)
    if not there:
        others = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise ValueError(f"{folder}: got {others}; expected one of {names}; add it")
    if len(there) > 1:
        got = " and ".join(path.name for path in there)
        raise ValueError(f"{folder}: got {got}; expected one of {names}; move the others away")
    return there[0]


def read(path: Path, wanted: Wanted, report: Report) -> Iterator[Piece]:
    """Reads a table in pieces; memory does not grow with the file.

    Args:
        path: A file that ends in one of SUFFIXES.
        wanted: Its columns.
        report: Where rows, unreadable rows and unknown columns are counted.

    Raises:
        ValueError: The file is empty or no table of its kind, lacks a required column, or has a
            column twice or of a type that makes no text.
    """
    if not path.stat().st_size:
        raise ValueError(f"{path}: got an empty file; expected a table with {_list(wanted)}")
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
    try:
        yield from readers[path.suffix](path, wanted, report)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"{path}: cannot be read as {path.suffix[1:]} ({text}); expected an unbroken file; "
            "write it again"
        ) from error


def _check_columns(path: Path, there: Sequence[str], wanted: Wanted, report: Report) -> None:
    """Refuses missing and repeated columns, and notes unknown ones."""
    got = ", ".join(there)
    got = got if len(got) < 500 else got[:500] + " ..."
    for name in wanted.required:
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"rename {close[0]!r}" if close else "add it"
            raise ValueError(f"{path}: got the columns {got}; expected {name!r} too; {hint}")
    for name in wanted.names:
        if there.count(name) > 1:
            raise ValueError(f"{path}: got the columns {got}; expected {name!r} once; rename one")
    _note_unknown(path, there, wanted, report, row=1)


def _note_unknown(
    path: Path, there: Sequence[str], wanted: Wanted, report: Report, row: int
) -> None:
    for name in there:
        if name not in wanted.names:
            close = difflib.get_close_matches(name, wanted.names, n=1)
            value = f"{name} (known: {close[0]})" if close else name
            report.add("unknown_column", path.name, row, "column", value)


def _shown(line: bytes) -> str:
    return line[:200].decode("utf-8", "replace")


def _list(wanted: Wanted) -> str:
    return f"the columns {', '.join(wanted.required)}"


# Parquet ------------------------------------------------------------------------------------


def _parquet(path: Path, wanted: Wanted, report: Report) -> Iterator[Piece]:
    with pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
        _check_columns(path, there, wanted, report)
        names = [name for name in wanted.names if name in there]
        row = 1
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
            report.read(path.name, len(batch))
            columns = {name: _as_bytes(batch.column(name), path, name, wanted) for name in names}
            yield Piece(np.arange(row, row + len(batch)), columns)
            row += len(batch)


def _as_bytes(array: pa.Array, path: Path, name: str, wanted: Wanted) -> pa.Array:
    kind, types = array.type, pa.types
    if types.is_dictionary(kind):
        return _as_bytes(array.dictionary_decode(), path, name, wanted)
    listed = types.is_list(kind) or types.is_large_list(kind)
    if name in wanted.lists and listed and _is_text(kind.value_type):
        return array.cast(pa.list_(pa.binary()))
    if types.is_timestamp(kind):
        array = array.cast(pa.timestamp("s"), safe=False)  # of a zone: in UTC
    if types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)  # as a null
    simple = types.is_primitive(kind) or types.is_decimal(kind) or types.is_null(kind)
    if simple and not types.is_duration(kind) and not types.is_time(kind):
        return array.cast(pa.string()).cast(pa.binary())
    if not _is_text(kind):
        lists = " or lists of texts" if name in wanted.lists else ""
        raise ValueError(
            f"{path}: got the column {name!r} of type {kind}; expected texts, numbers{lists}; "
            "convert it"
        )
    return array.cast(pa.binary())


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return text or types.is_binary(kind) or types.is_large_binary(kind)


# CSV ----------------------------------------------------------------------------------------


def _csv(path: Path, wanted: Wanted, report: Report) -> Iterator[Piece]:
    with open(path, "rb") as file:
        there = header(path, file)
        if len(there) == 1 and any(mark in there[0] for mark in ";\t|"):
            raise ValueError(
                f"{path}: got the header {there[0][:200]!r}; expected columns separated by commas; "
                "write it again with commas"
            )
        _check_columns(path, there, wanted, report)
        positions = {name: there.index(name) for name in wanted.names if name in there}
        oneline = [k for name, k in positions.items() if name not in wanted.multiline]
        row = 2
        for block in blocks(file, quotes=True):
            table, unreadable = parse(block, len(there), oneline)
            total = len(table) + len(unreadable)
            numbers = np.delete(np.arange(total), list(unreadable))
            columns = [table.column(k).combine_chunks() for k in range(len(there))]
            # Blank lines are rows of empty cells. They hold nothing and are no records.
            lengths = [pc.binary_length(column).to_numpy() for column in columns]
            full = np.flatnonzero(np.any(lengths, axis=0))
            report.read(path.name, len(full) + len(unreadable))
            rows = row + np.array(list(unreadable), np.int64)
            shown = [_shown(line) for line in unreadable.values()]
            report.add_many("unreadable_row", path.name, rows, "line", shown)
            if len(full) < len(numbers):
                columns = [column.take(pa.array(full)) for column in columns]
            yield Piece(row + numbers[full], {name: columns[k] for name, k in positions.items()})
            row += total


# JSON lines ---------------------------------------------------------------------------------


def _json_lines(path: Path, wanted: Wanted, report: Report) -> Iterator[Piece]:
    seen: dict[str, None] = {}
    row = 1
    with open(path, "rb") as file:
        for block in blocks(file, quotes=False):
            lines = block.removesuffix(b"\n").split(b"\n")
            numbered = [(row + k, line) for k, line in enumerate(lines) if line.strip()]
            report.read(path.name, len(numbered))
            row += len(lines)
            for begin in range(0, len(numbered), ROWS_AT_ONCE):
                part = numbered[begin : begin + ROWS_AT_ONCE]
                rows, records = _json_records(path, part, report)
                new = [key for record in records for key in record if key not in seen]
                new = list(dict.fromkeys(new))
                if not records:
                    continue
                if not seen:
                    _check_columns(path, new, wanted, report)
                else:
                    _note_unknown(path, new, wanted, report, row=part[0][0])
                seen |= dict.fromkeys(new)
                names = [name for name in wanted.names if name in seen]
                yield Piece(rows, {name: _json_column(name, records, wanted) for name in names})


def _json_records(
    path: Path, lines: list[tuple[int, bytes]], report: Report
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    rows, records = [], []
    for row, line in lines:
        record = _json_record(line)
        if record is None:
            report.add("unreadable_row", path.name, row, "line", _shown(line))
        else:
            rows.append(row)
            records.append(record)
    return np.array(rows, np.int64), records


def _json_record(line: bytes) -> dict[str, Any] | None:
    try:
        # Bytes that are no UTF-8 become surrogates, and bytes again in their cell.
        record = json.loads(line.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _json_column(name: str, records: list[dict[str, Any]], wanted: Wanted) -> pa.Array:
    values = [record.get(name) for record in records]
    if name in wanted.lists and any(isinstance(value, list) for value in values):
        # Where lists and texts are mixed, the texts are made lists too.
        lists = [v if isinstance(v, list) else split_tags(str(v or "")) for v in values]
        cells = [[_json_cell(tag) for tag in value] for value in lists]
        return pa.array(cells, pa.list_(pa.binary()))
    return pa.array([_json_cell(value) for value in values], pa.binary())


def _json_cell(value: Any) -> bytes | None:
    if value is None or value != value:  # NaN, which JSON itself does not have
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # half a pair, written as \ud800
