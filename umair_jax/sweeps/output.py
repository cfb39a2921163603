"""What a sweep leaves behind: tables, AUC by segment, winners, pictures."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from umair_jax import results
from umair_jax.jobs import bookmarks
from umair_jax.sweeps import plots, segments, table, winners
from umair_jax.sweeps.config import SweepConfig, row_config
from umair_jax.sweeps.runs import Run, Runner


def write(made: SweepConfig, workdir: Path, console: Console) -> list[Run]:
    """Reads every finished row and writes tables and pictures."""
    runner, runs = Runner(workdir / "runs"), {}
    for name in made.rows:
        config, _ = winners.chosen(made, workdir, name, None)
        found = []
        for seed in made.seeds:
            config.seed = seed
            found.append(runner.done(config))
        if all(found):
            runs[name] = found
    lines = table.lines(made, runs)
    simulated = runs[made.reference][0].summary["simulated"]
    results.write_text(workdir / "table.md", table.as_markdown(made, lines, simulated))
    results.write_text(workdir / "table.csv", table.as_csv(lines))
    results.write_text(workdir / "table.tex", table.as_latex(made, lines))
    searched = winners.as_json(made, workdir)
    if searched:
        results.write_text(workdir / "winners.json", searched)
    label = made.rows[made.reference].label or made.reference
    for cost in plots.COSTS:
        plots.against_cost(lines, cost, label, workdir / f"auc_{cost}.png")
    _write_segments(made, workdir, runs)
    reference = runs[made.reference]
    names = list(reference[0].summary["modality_weights"])
    if names:
        weights = reference[0].predictions()["weights"]
        plots.weight_distributions(weights, names, workdir / "weights.png")
    console.print(table.for_terminal(made, lines))
    missing = [name for name in made.rows if name not in runs]
    if missing:
        console.print(f"Not finished, and not in the table: {', '.join(missing)}")
    console.print(f"Written to {workdir}")
    return reference


def _write_segments(made: SweepConfig, workdir: Path, runs: dict[str, list[Run]]) -> None:
    """AUC by activity and, where simulated, by taste; pictures of the six best rows."""
    config = row_config(made.reference, made.rows[made.reference], made)
    loaded = bookmarks.load(config, Console(quiet=True))
    user = runs[made.reference][0].predictions()["user"]
    thirds = segments.activity(loaded.dataset, loaded.data.rows("train"), user)
    found = {"activity": segments.auc_by_segment(thirds, segments.ACTIVITY, runs)}
    tastes = segments.taste(loaded.dataset, user)
    if tastes is not None:
        found["taste"] = segments.auc_by_segment(tastes, segments.TASTES, runs)
    results.write_text(workdir / "segments.json", json.dumps(found, indent=2) + "\n")
    whole = {name: sum(r.summary["test"]["auc"] for r in mine) for name, mine in runs.items()}
    best = sorted((n for n in runs if n != made.reference), key=lambda n: -whole[n])[:5]
    for kind, parts in found.items():
        shown = {
            segment: {_label(made, n): values[n] for n in (made.reference, *best)}
            for segment, values in parts.items()
        }
        plots.by_segment(shown, workdir / f"auc_by_{kind}.png")


def _label(made: SweepConfig, name: str) -> str:
    row = made.rows[name]
    return ", ".join(filter(None, (row.label or name, row.features)))
