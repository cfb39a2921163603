"""What was found out about vectors: as summary.json, as tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from umair_jax.probes.baselines import WHAT
from umair_jax.probes.pictures import MOVES, STYLES
from umair_jax.probes.style import AS_THEY_ARE, BASELINES, MOVED, TRAINED, UNTRAINED, Findings

HEADERS = {
    "same_style_precision_at_10": "same style",
    "same_concept_hit_at_10": "same concept",
    "same_artist_precision_at_10": "same artist",
}
MEANING = {
    "same_style_precision_at_10": "share of the 10 nearest among other concepts that are in the "
    "query's style",
    "same_concept_hit_at_10": "share of queries whose 10 nearest among other styles contain the "
    "query's concept",
    "same_artist_precision_at_10": "share of the 10 nearest drawings that are by the query's "
    "artist",
}
SECTIONS = {
    TRAINED: "trained encoder",
    UNTRAINED: "untrained encoder",
    BASELINES: "no network",
}
STANDARDISED = "standardised"


def summarise(found: Mapping[str, Findings]) -> dict[str, Any]:
    """The part of summary.json that was measured.

    Args:
        found: "styles", "artists" or both.

    Returns:
        By vector, the main encoder's answers and those of the baselines; the same under
        "standardised" and "moved"; "untrained" with all of that once more; "artists"; "chance".
    """
    summary: dict[str, Any] = {"main_encoder": next(iter(found.values())).main}
    untrained: dict[str, Any] = {}
    for kind, findings in found.items():
        for name, encoders in findings.rounds.items():
            into = (kind,) if kind != STYLES else (() if name == AS_THEY_ARE else (name,))
            _merge(summary, into, encoders[findings.main])
            _merge(summary, into, encoders[BASELINES])
            if UNTRAINED in encoders:
                _merge(untrained, into, encoders[UNTRAINED])
    if untrained:
        summary[UNTRAINED] = untrained
    summary["chance"] = {k: v for f in found.values() for k, v in f.chance.items()}
    summary["queries"] = {k: v for f in found.values() for k, v in f.counted.items()}
    summary["pictures"] = {kind: len(f.pictures) for kind, f in found.items()}
    summary["labels"] = {
        name: len(set(codes.tolist()))
        for f in found.values()
        for name, codes in f.pictures.labels.items()
    }
    summary["dropped"] = {kind: dict(f.pictures.dropped) for kind, f in found.items()}
    return summary


def _merge(summary: dict[str, Any], into: tuple[str, ...], values: Mapping[str, Any]) -> None:
    for key in into:
        summary = summary.setdefault(key, {})
    for vector, value in values.items():
        if vector == STANDARDISED:
            _merge(summary, (STANDARDISED,), value)
        else:
            summary[vector] = dict(value)


def _titles(kind: str, findings: Findings) -> Iterator[tuple[str, str]]:
    pictures, queries = findings.pictures, len(findings.queries)
    names = {name: len(set(codes.tolist())) for name, codes in pictures.labels.items()}
    if kind != STYLES:
        yield AS_THEY_ARE, f"{len(pictures):,} built-in drawings of {names['artist']} artists"
        return
    what = f"{names['concept']:,} concepts in {names['style']} styles"
    yield AS_THEY_ARE, f"{what}: {queries:,} queries among {len(pictures):,} pictures"
    yield MOVED, f"{what}: the same {queries:,} queries, moved"


def _rows(encoders: Mapping[str, Any], findings: Findings) -> Iterator[tuple[str, list[list[str]]]]:
    """Sections of a table: its name, and rows of cells."""
    for section, vectors in encoders.items():
        lines = []
        for variant in ("", STANDARDISED):
            for vector, answers in (vectors[variant] if variant else vectors).items():
                if vector == STANDARDISED:
                    continue
                name = vector.replace("_", " ") + (f" ({variant})" if variant else "")
                cells = [
                    f"{answers[question]:.3f} ± {answers[question + '_half_width']:.3f}"
                    for question in findings.chance
                ]
                lines.append([name, *cells])
        yield SECTIONS[section], lines
    yield "chance", [["neighbours at random", *(f"{v:.3f}" for v in findings.chance.values())]]


def show(found: Mapping[str, Findings], console: Console) -> None:
    """Prints a table for each round."""
    for kind, findings in found.items():
        for name, title in _titles(kind, findings):
            table = Table(title=title, title_justify="left")
            table.add_column("10 nearest by")
            for question in findings.chance:
                table.add_column(HEADERS[question], justify="right")
            for section, lines in _rows(findings.rounds[name], findings):
                for index, cells in enumerate(lines):
                    last = index == len(lines) - 1
                    first = cells[0] if section == "chance" else f"{section}: {cells[0]}"
                    table.add_row(first, *cells[1:], end_section=last)
            console.print(table)
        for question in findings.chance:
            console.print(f"{HEADERS[question]}: {MEANING[question]}.")
        if MOVED in findings.rounds:
            console.print(f"moved: each query {MOVES}; candidates are as they are.")
        unit = "artists" if kind != STYLES else "concepts"
        console.print(f"±: half a 95 % interval, by resampling {unit}.")
        for why, count in findings.pictures.dropped.items():
            console.print(f"Left out: {count:,} pictures {why}.")


def markdown(found: Mapping[str, Findings], about: Mapping[str, str], figure: str) -> str:
    """The same as a file, with the figure.

    Args:
        found: "styles", "artists" or both.
        about: Facts of the run.
        figure: Name of the figure's file.
    """
    lines = ["# What content and style vectors carry", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += [f"- {name.replace('_', ' ')}: {what}" for name, what in WHAT.items()]
    lines += [
        "- standardised: every channel with mean 0 and deviation 1 over the candidates, as the "
        "ranker takes it",
        "- both: style and content, each scaled to length 1, one after the other",
        "- ±: half a 95 % bootstrap interval over concepts or artists",
    ]
    for kind, findings in found.items():
        for name, title in _titles(kind, findings):
            questions = list(findings.chance)
            lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
            if name == MOVED:
                lines += [f"Each query is {MOVES}. Candidates are as they are.", ""]
            lines += [f"| 10 nearest by | {' | '.join(HEADERS[q] for q in questions)} |"]
            lines += ["|---|" + "---|" * len(questions)]
            for section, rows in _rows(findings.rounds[name], findings):
                for cells in rows:
                    first = cells[0] if section == "chance" else f"{section}: {cells[0]}"
                    lines.append(f"| {' | '.join([first, *cells[1:]])} |")
        lines += ["", *(f"- {HEADERS[q]}: {MEANING[q]}." for q in findings.chance)]
        lines += [
            f"- Left out: {n:,} pictures {why}." for why, n in findings.pictures.dropped.items()
        ]
    lines += ["", f"![Queries with their nearest by style and by content]({figure})", ""]
    return "\n".join(lines)
