"""Trains every row of a table over several seeds, and writes the table.

    python -m umair_jax.sweep --config=configs/paper_table.py [--workdir=runs/paper_table]

What is trained already is read, so that a sweep that was cut off goes on, and one more row costs
one row. --rows=fm,deepfm takes these and the reference alone. --workers=N trains N rows at a time,
each on devices or cores of its own. The folder gets table.md, table.csv, table.tex, segments.json,
winners.json (what the search found), pictures, and compiled/, so that the second seed of a row is
not compiled again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from umair_jax import settings
from umair_jax.compilation import keep_compiled
from umair_jax.memory import keep_freed_memory
from umair_jax.sweeps import output, winners
from umair_jax.sweeps.config import SweepConfig, build
from umair_jax.sweeps.runs import Run, Runner, SweepInterruptedError

INTERRUPTED = 130


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
    return output.write(made, workdir, console)


def only(config: ConfigDict, names: Sequence[str]) -> None:
    """Leaves some rows of a sweep, and the reference.

    Raises:
        ValueError: It has no such row.
    """
    rows: Any = config.rows
    unknown = [name for name in names if name not in rows]
    if unknown:
        known = ", ".join(rows)
        raise ValueError(f"--rows: got {', '.join(unknown)}; expected some of {known}")
    with config.unlocked():
        for name in [*rows]:
            if name not in (config.reference, *names):
                del rows[name]


def train_rows(made: SweepConfig, workdir: Path, console: Console) -> None:
    """Trains every row that nobody else has or is at."""
    runner, began, trained = Runner(workdir / "runs"), time.monotonic(), 0
    for place, name in enumerate(made.rows):
        with _claimed(workdir / "locks" / name) as mine:
            if not mine:
                continue
            config, options = winners.chosen(made, workdir, name, runner)
            for number, seed in enumerate(made.seeds, 1):
                config.seed = seed
                there = runner.done(config)
                run = there or runner(name, config)
                trained += there is None
                test = run.summary["test"]
                count, whole = place * len(made.seeds) + number, len(made.rows) * len(made.seeds)
                seconds = (time.monotonic() - began) / max(trained, 1)
                left = f"{(whole - count) * seconds / 60:.0f} min to go" if trained else "read"
                console.print(
                    f"[{count}/{whole}] {name}, seed {seed}: test AUC {test['auc']:.4f}, log loss "
                    f"{test['log_loss']:.4f}{_words(options)}; {left}",
                    markup=False,
                    soft_wrap=True,
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


def _words(options: Mapping[str, Any]) -> str:
    return "".join(f", {name.rsplit('.')[-1]} {value}" for name, value in options.items())


# Workers ----------------------------------------------------------------------------------------


# Asked in another process: one that has asked keeps most of the memory of every card.
_ASK = "import jax; print(jax.default_backend(), jax.device_count())"


def _places(workers: int) -> list[dict[str, str]]:
    """What the environment of each worker adds: a device of its own, or cores of its own."""
    said = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    backend, count = said.stdout.split()[-2:]
    if backend != "gpu":
        return [{"UMAIR_JAX_CORES": f"{number}/{workers}"} for number in range(workers)]
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = given.split(",") if given else [str(number) for number in range(int(count))]
    places = [{"CUDA_VISIBLE_DEVICES": cards[n % len(cards)]} for n in range(workers)]
    if workers > len(cards):
        share = 0.9 / -(-workers // len(cards))
        places = [{"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{share:.3f}"} | place for place in places]
    return places


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
        SweepInterruptedError: A signal ended one.
    """
    console.print(f"{workers} rows at a time")
    command = [sys.executable, "-m", "umair_jax.sweep", *sys.argv[1:], "--worker"]
    started: list[subprocess.Popen] = []

    def pass_on(number: int, _: Any) -> None:
        # Ctrl-C reaches the workers of a terminal by itself; a second one would not let them save.
        for process in started if number == signal.SIGTERM else ():
            process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        started += [subprocess.Popen(command, env=os.environ | more) for more in _places(workers)]
        codes = [process.wait() for process in started]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if INTERRUPTED in codes:
        raise SweepInterruptedError("interrupted; the same command goes on")
    if any(codes):
        raise ValueError(f"workers: got the exit codes {codes}; expected 0; see above, run again")


def define_flags() -> None:
    """The flags of the command line."""
    config_flags.DEFINE_config_file("config", "configs/paper_table.py", "File of the sweep.")
    flags.DEFINE_string("workdir", None, "Folder of the sweep; if left out in runs/.")
    flags.DEFINE_list("rows", None, "Rows to take beside the reference; all if left out.")
    flags.DEFINE_integer("workers", 1, "Rows that are trained at a time.", lower_bound=1)
    flags.DEFINE_bool("worker", False, "Train, but leave the tables to whoever started this.")


def main(argv: list[str]) -> None:
    """Parses the flags and runs the sweep; exit status 130 if a signal ended it."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --workers=2")
    values, console = flags.FLAGS, Console()
    config = settings.loaded(values.config)
    if values.rows:
        only(config, values.rows)
    name = settings.run_name(config_flags.get_config_filename(values["config"]))
    workdir = Path(values.workdir or Path("runs") / name)
    keep_compiled(workdir / "compiled")
    try:
        if values.worker:
            train_rows(build(config), workdir, console)
            return
        if values.workers > 1:
            build(config)  # mistakes come to light before processes start
            _run_workers(values.workers, console)
        sweep(config, workdir, console)
    except SweepInterruptedError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    _take_cores()
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
