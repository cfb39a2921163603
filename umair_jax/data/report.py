"""Bad data, counted: what was wrong, how often, where, and what was done about it.

Nothing is dropped without an entry here. Kinds that mean damage count as bad rows, and a file with
too large a share of bad rows stops the run; the others are notes.

Rows are numbered as people see them: in a CSV the header is row 1 and the first record row 2; in
Parquet and JSON lines the first record is row 1.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

EXAMPLES = 5
_LONGEST_VALUE = 60


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        what: What is wrong.
        done: What is done about it.
        bad: Whether the row counts as bad; otherwise the entry is a note.
        advice: What the owner of the data can do.
    """

    what: str
    done: str
    bad: bool
    advice: str


DATA_SET_KINDS = {
    # pictures
    "broken_image": Kind(
        "not a picture, or a broken one", "kept without picture", True, "replace the file"
    ),
    "image_too_large": Kind(
        "more pixels or bytes than allowed", "kept without picture", True,
        "shrink the picture or raise --pixel_limit",
    ),
    "image_not_found": Kind(
        "the named picture is not there", "kept without picture", True, "correct the file name"
    ),
    "image_outside": Kind(
        "the picture's path leaves images/", "kept without picture", True,
        "copy the picture into images/",
    ),
    "ambiguous_image": Kind(
        "several pictures with the item's id", "the first by name is used", False,
        "name the file in a column `image`",
    ),
    "no_image": Kind("no picture", "kept", False, "add images/<illust_id>.*, or the poster"),
    # items
    "duplicate_item": Kind(
        "the id occurred before", "dropped; the first one counts", True, "make illust_id unique"
    ),
    "missing_id": Kind("an id is empty", "dropped", True, "fill in the id"),
    "empty_tags": Kind("no tags", "kept", False, "none needed"),
    "not_a_number": Kind(
        "not a whole number", "taken as missing", True, "write a number or leave it empty"
    ),
    "negative_number": Kind(
        "below zero", "taken as missing", True, "write a number >= 0 or leave it empty"
    ),
    "bad_published": Kind(
        "not a point in time", "taken as missing", True, "write unix seconds or ISO 8601"
    ),
    # any table
    "bad_utf8": Kind(
        "not UTF-8", "wrong bytes replaced by U+FFFD", True, "save the file as UTF-8"
    ),
    "bad_utf8_id": Kind("an id is not UTF-8", "dropped", True, "save the file as UTF-8"),
    "unreadable_row": Kind(
        "not a record of this table", "dropped", True, "correct the line; quote cells with commas"
    ),
    "unknown_column": Kind("a column nobody asks for", "not read", False, "rename or ignore it"),
    # interactions
    "unknown_item": Kind("no such item", "dropped", True, "add the item or remove the line"),
    "bad_timestamp": Kind(
        "not a point in time", "dropped", True,
        "write unix seconds (not milliseconds) or ISO 8601, 1970 to 2099",
    ),
    "bad_label": Kind("neither 0 nor 1", "dropped", True, "write 1 for a bookmark, else 0"),
    "duplicate_interaction": Kind("repeated exactly", "kept once", False, "none needed"),
    "contradiction": Kind(
        "both 0 and 1 for the same user, item and second", "kept as bookmark", False,
        "remove the wrong line",
    ),
    "no_negative_left": Kind(
        "all items were bookmarked by then, or are published later", "fewer negatives", False,
        "lower --negatives_per_positive; correct published",
    ),
}  # fmt: skip

FILM_KINDS = {
    "bad_year": Kind(
        "no year from 1874 to 2099", "taken as missing", True, "write the year or leave it empty"
    ),
    "rated_before": Kind(
        "rated before its year began", "published at its first rating", False, "correct the year"
    ),
}

PAIR_KINDS = {
    "unknown_perspective": Kind(
        "none of multilingual, relation, explanation", "dropped", True, "correct the perspective"
    ),
    "empty_text": Kind("a text of the pair is empty", "dropped", True, "fill in both texts"),
    "same_text": Kind("both texts are one", "dropped", False, "none needed"),
    "long_text": Kind(
        "longer than data allows", "dropped", False, "shorten it or raise pairs.max_characters"
    ),
    "housekeeping": Kind(
        "a page about the wiki, not about the world", "dropped", False, "none needed"
    ),
    "duplicate_pair": Kind("the pair occurred before", "kept once", False, "none needed"),
}  # fmt: skip

KINDS = DATA_SET_KINDS | FILM_KINDS | PAIR_KINDS


@dataclasses.dataclass(frozen=True)
class Example:
    """Where a problem occurred."""

    file: str
    row: int
    field: str
    value: str


@dataclasses.dataclass
class _Count:
    number: int = 0
    examples: list[Example] = dataclasses.field(default_factory=list)
    by_file: Counter[str] = dataclasses.field(default_factory=Counter)


class Report:
    """Counts of problems by kind, with the first few examples of each in every file."""

    def __init__(self):
        self.rows: dict[str, int] = {}
        self._counts: dict[str, _Count] = {}
        self._bad: dict[str, list[np.ndarray]] = {}
        self._bad_rows: dict[str, int] = {}

    def read(self, file: str, rows: int) -> None:
        """Notes that so many further rows of a file were read."""
        self.rows[file] = self.rows.get(file, 0) + int(rows)

    def add(self, kind: str, file: str, row: int, field: str, value: Any) -> None:
        """Counts one problem."""
        self.add_many(kind, file, np.array([row]), field, [value])

    def add_many(
        self, kind: str, file: str, rows: np.ndarray, field: str, values: Sequence[Any]
    ) -> None:
        """Counts problems of one kind in one column.

        Args:
            kind: A key of KINDS.
            file: Name of the file.
            rows: Row numbers.
            field: Name of the column.
            values: What stands there; only the first few are looked at.
        """
        known = KINDS[kind]
        if not len(rows):
            return
        count = self._counts.setdefault(kind, _Count())
        count.number += len(rows)
        room = max(0, EXAMPLES - count.by_file[file])
        count.by_file[file] += len(rows)
        for row, value in zip(rows[:room].tolist(), values, strict=False):
            count.examples.append(Example(file, row, field, _short(value)))
        if known.bad:
            self._bad.setdefault(file, []).append(np.asarray(rows, np.int64))

    @property
    def counts(self) -> dict[str, int]:
        """Problems by kind."""
        return {kind: count.number for kind, count in self._counts.items()}

    @property
    def examples(self) -> dict[str, list[Example]]:
        """The first examples by kind."""
        return {kind: list(count.examples) for kind, count in self._counts.items()}

    def bad_shares(self) -> dict[str, float]:
        """Share of the rows of each file that have at least one real fault."""
        for file, rows in self._bad.items():
            self._bad_rows[file] = len(np.unique(np.concatenate(rows)))
        return {
            file: self._bad_rows.get(file, 0) / rows if rows else 0.0
            for file, rows in self.rows.items()
        }

    def check(self, max_bad_share: float) -> None:
        """Stops the run if a file is too bad.

        Args:
            max_bad_share: Largest tolerated share of bad rows in any one file, 0 .. 1.

        Raises:
            ValueError: A file has more; its most frequent faults are named with an example.
        """
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"got max_bad_share {max_bad_share}; expected 0 to 1")
        for file, share in self.bad_shares().items():
            if share <= max_bad_share:
                continue
            lines = [
                f"{count.by_file[file]} x {kind}: {KINDS[kind].what}, e.g. row {example.row}, "
                f"{example.field} = {example.value}; {KINDS[kind].advice}"
                for kind, count in sorted(
                    self._counts.items(), key=lambda entry: -entry[1].by_file[file]
                )
                for example in [e for e in count.examples if e.file == file][:1]
                if KINDS[kind].bad
            ]
            raise ValueError(
                f"{file}: got {self._bad_rows[file]} bad rows of {self.rows[file]} "
                f"({share:.1%}); expected at most {max_bad_share:.1%}; correct them, or raise "
                "--max_bad_share to go on without them:\n  " + "\n  ".join(lines)
            )

    def table(self) -> Table:
        """The summary for the terminal."""
        table = Table(title="Checked data", title_justify="left")
        table.add_column("problem")
        table.add_column("count", justify="right")
        table.add_column("what was done")
        table.add_column("examples (file, row, field = value)", overflow="fold")
        for kind, count in sorted(
            self._counts.items(), key=lambda kv: (not KINDS[kv[0]].bad, -kv[1].number)
        ):
            known = KINDS[kind]
            # The first of every file, then the second ones.
            among = Counter[str]()
            order = []
            for example in count.examples:
                order.append((among[example.file], example))
                among[example.file] += 1
            order.sort(key=lambda entry: entry[0])
            places = "\n".join(
                f"{e.file}, row {e.row}, {e.field} = {e.value}" for _, e in order[:3]
            )
            problem = f"{kind}: {known.what}{'' if known.bad else ' (note)'}"
            table.add_row(problem, f"{count.number:,}", known.done, escape(places))
        shares = self.bad_shares()
        for file, rows in self.rows.items():
            table.add_row(escape(f"rows of {file}"), f"{rows:,}", f"{shares[file]:.2%} bad", "")
        return table

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; see from_dict."""
        shares = self.bad_shares()
        return {
            "rows": self.rows,
            "bad_rows": {file: self._bad_rows.get(file, 0) for file in self.rows},
            "bad_share": shares,
            "problems": {
                kind: {
                    "count": count.number,
                    "examples": [dataclasses.asdict(e) for e in count.examples],
                }
                for kind, count in self._counts.items()
            },
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Report:
        """The report that to_dict wrote; its bad rows are known by number only."""
        report = cls()
        report.rows = dict(stored["rows"])
        report._bad_rows = dict(stored["bad_rows"])
        for kind, entry in stored["problems"].items():
            examples = [Example(**example) for example in entry["examples"]]
            report._counts[kind] = _Count(entry["count"], examples)
        return report


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    # Printed to terminals and written to JSON: no control characters, no endless cells.
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
