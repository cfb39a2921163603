"""Trains every row of a table over several seeds, and writes the table.

    python -m umair_jax.sweep --config=configs/paper_table.py [--workdir=runs/paper_table]

What is trained already is read, so that a sweep that was cut off goes on, and one more row costs
one row. --workers=N trains N rows at a time, each on devices or cores of its own. The folder gets
table.md, table.csv, table.tex, segments.json, winners.json (what the search found) and pictures.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from umair_jax import settings
from umair_jax.jobs import bookmarks
from umair_jax.memory import keep_freed_memory
from umair_jax.sweeps import plots, search, segments, table
from umair_jax.sweeps.config import SweepConfig, build, override, read_winners, row_config
from umair_jax.sweeps.runs import Run, Runner


def sweep(config: ConfigDict, workdir: str | Path, console: Console | None = None) -> list[Run]:
    """Trains what is missing, here and now, and writes the tables.

    Args:
        config: As get_config() of configs/paper_table.py gives it.
        workdir: Folder of the runs and tables.
        console: Where progress and the table go.

    Returns:
        The runs of the reference, one a seed.

    Raises:
        ValueError: An unknown key or value, or rows with different test examples.
        SweepInterruptedError: A signal ended a run; the same call goes on with it.
    """
    console, workdir = console or Console(), Path(workdir)
    made = build(config)
    train_rows(made, workdir, console)
    return write(made, workdir, console)


def train_rows(made: SweepConfig, workdir: Path, console: Console) -> None:
    """Trains every row that nobody else has or is at."""
    runner, began, new = Runner(workdir / "runs"), time.monotonic(), 0
    for place, name in enumerate(made.rows, 1):
        with _claimed(workdir / "locks" / f"{place:03d}") as mine:
            if not mine:
                continue
            config, found = _best(made, workdir, name, runner)
            for seed in made.seeds:
                config.seed = seed
                there = runner.done(name, config)
                run = there or runner(name, config)
                new += there is None
                minutes = (time.monotonic() - began) / 60
                console.print(
                    f"{place}/{len(made.rows)} {name}, seed {seed}: test AUC "
                    f"{run.summary['test']['auc']:.4f}, log loss "
                    f"{run.summary['test']['log_loss']:.4f}{found}; {new} new runs in "
                    f"{minutes:.1f} min"
                )


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether nobody else has this lock; the system frees it when a process ends, however."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _best(made: SweepConfig, workdir: Path, name: str, runner: Runner) -> tuple[ConfigDict, str]:
    """A row's config with what the search found for it, and words about that."""
    config = row_config(name, made.rows[name], made)
    with config.unlocked():
        winners = _winners(made, workdir)
        if name not in winners and made.search.trials:

            def measure(options: Any) -> float:
                trial = row_config(name, made.rows[name], made)
                override(trial, options, f"config.search.space of {name}")
                trial.seed = made.search.seed
                return runner(name, trial).summary["validation"]["auc"]

            tried = search.settings_of(name, config, made.search)
            path = workdir / "search" / f"{name}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(search.best(tried, measure), indent=2) + "\n", "utf-8")
            winners = _winners(made, workdir)
        options = winners.get(name, {})
        override(config, options, f"winner of {name}")
    said = "".join(f", {key.rsplit('.')[-1]} {value}" for key, value in options.items())
    return config, said


def _winners(made: SweepConfig, workdir: Path) -> dict[str, dict[str, Any]]:
    if made.search.winners:
        return read_winners(made.search.winners)
    paths = sorted((workdir / "search").glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8"))["options"] for path in paths}


def write(made: SweepConfig, workdir: Path, console: Console) -> list[Run]:
    """Reads every finished row and writes tables and pictures."""
    runner, runs = Runner(workdir / "runs"), {}
    for name in made.rows:
        config, _ = _best(made, workdir, name, runner)
        found = []
        for seed in made.seeds:
            config.seed = seed
            found.append(runner.done(name, config))
        if all(found):
            runs[name] = found
    lines = table.lines(made, runs)
    simulated = runs[made.reference][0].summary["simulated"]
    _write(workdir / "table.md", table.as_markdown(made, lines, simulated))
    _write(workdir / "table.csv", table.as_csv(lines))
    _write(workdir / "table.tex", table.as_latex(made, lines))
    _write_winners(made, workdir)
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


def _write_winners(made: SweepConfig, workdir: Path) -> None:
    paths = sorted((workdir / "search").glob("*.json"))
    if paths:
        rows = {path.stem: json.loads(path.read_text("utf-8")) for path in paths}
        whole = {"space": made.search.space, "seed": made.search.seed, "rows": rows}
        _write(workdir / "winners.json", json.dumps(whole, indent=2) + "\n")


def _write_segments(made: SweepConfig, workdir: Path, runs: dict[str, list[Run]]) -> None:
    """AUC by activity, of the reference and the five best of the others."""
    config = row_config(made.reference, made.rows[made.reference], made)
    loaded = bookmarks.load(config, Console(quiet=True))
    user = runs[made.reference][0].predictions()["user"]
    thirds = segments.activity(loaded.dataset, loaded.data.rows("train"), user)
    found = segments.auc_by_segment(thirds, segments.ACTIVITY, runs)
    _write(workdir / "segments.json", json.dumps(found, indent=2) + "\n")
    whole = {name: sum(r.summary["test"]["auc"] for r in mine) for name, mine in runs.items()}
    best = sorted((n for n in runs if n != made.reference), key=lambda n: -whole[n])[:5]
    shown = {
        segment: {made.rows[n].label or n: values[n] for n in (made.reference, *best)}
        for segment, values in found.items()
    }
    plots.by_segment(shown, workdir / "auc_by_segment.png")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


# Workers ----------------------------------------------------------------------------------------


def _places(workers: int) -> Iterator[dict[str, str]]:
    """What the environment of each worker adds: a device of its own, or cores of its own."""
    for number in range(workers):
        if jax.default_backend() == "gpu":
            yield {"CUDA_VISIBLE_DEVICES": str(number % jax.device_count())}
        else:
            yield {"UMAIR_JAX_CORES": f"{number}/{workers}"}


def _take_cores() -> None:
    """Keeps a worker to its share of the cores; XLA sizes its thread pool by them."""
    share = os.environ.get("UMAIR_JAX_CORES")
    if share and hasattr(os, "sched_setaffinity"):
        number, workers = map(int, share.split("/"))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::workers] or cores)


def _run_workers(workers: int, console: Console) -> None:
    """Starts the same command several times; each takes the rows that the others leave.

    Raises:
        ValueError: One of them failed; it said why.
    """
    console.print(f"{workers} rows at a time")
    command = [sys.executable, "-m", "umair_jax.sweep", *sys.argv[1:], "--worker"]
    started = [subprocess.Popen(command, env=os.environ | more) for more in _places(workers)]
    codes = [process.wait() for process in started]
    if any(codes):
        raise ValueError(f"workers: got the exit codes {codes}; expected 0; see above, run again")


def define_flags() -> None:
    """The flags of the command line."""
    config_flags.DEFINE_config_file("config", "configs/paper_table.py", "File of the sweep.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; runs/<config name> if left out.")
    flags.DEFINE_integer("workers", 1, "Rows that are trained at a time.", lower_bound=1)
    flags.DEFINE_bool("worker", False, "Train, but leave the tables to whoever started this.")


def main(argv: list[str]) -> None:
    """Parses the flags and runs the sweep."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --workers=2")
    values, console = flags.FLAGS, Console()
    config = settings.loaded(values.config)
    name = Path(config_flags.get_config_filename(values["config"])).stem
    workdir = Path(values.workdir or Path("runs") / name)
    if values.worker:
        train_rows(build(config), workdir, console)
        return
    if values.workers > 1:
        build(config)  # mistakes come to light before processes start
        _run_workers(values.workers, console)
    sweep(config, workdir, console)


if __name__ == "__main__":
    define_flags()
    _take_cores()
    keep_freed_memory()
    settings.run_front_door(main)
