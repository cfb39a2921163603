"""Results: one JSON line each on standard output and in benchmarks/results, and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def emit(row: Mapping[str, Any]) -> None:
    """Prints one result."""
    print(json.dumps(row), flush=True)


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes all results of a run, in place of those of an earlier one.

    Where a benchmark has parts, earlier results of parts that were not measured now stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {row.get("part") for row in rows}
    earlier = path.read_text().splitlines() if path.exists() and None not in measured else []
    kept = [line for line in earlier if json.loads(line).get("part") not in measured]
    path.write_text("".join(line + "\n" for line in [*kept, *map(json.dumps, rows)]))


def show(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Prints a table on standard error.

    Args:
        title: Its heading.
        rows: The results.
        columns: Key of a result -> heading.
    """
    table = Table(title=title)
    for key, heading in columns.items():
        text = all(isinstance(row.get(key), str) for row in rows)
        table.add_column(heading, justify="left" if text else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 140  # of a file or a pipe nothing is known
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
