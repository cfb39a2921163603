"""Trains what a config names, from the data set to the evaluation, in one go.

    python -m umair_jax.train --config=configs/base.py [--config.seed=1] [--workdir=runs/one]

Whatever is done already is kept: the data set and the bank by their content, a finished or
interrupted run by its checkpoints. --restart begins the run anew. Several processes, on one host or
many, train together when all of them are started with this command; see docs/scale.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from umair_jax import hosts, jobs, results, settings
from umair_jax.hosts import HostsConfig
from umair_jax.jobs import Job
from umair_jax.memory import keep_freed_memory, peak_memory_bytes
from umair_jax.training.loop import FitResult, fit


def train(
    config: ConfigDict,
    workdir: str | Path,
    restart: bool = False,
    console: Console | None = None,
    assemble: Callable[[ConfigDict, Console], Job] = jobs.assemble,
) -> dict[str, Any]:
    """Makes the data, trains, evaluates, and writes summary.json.

    Args:
        config: As get_config() of a file in configs/ gives it.
        workdir: Where the run is, or will be.
        restart: Delete the run that is there first.
        console: Where tables and notices go.
        assemble: Makes the job; for callers that share data between several.

    Returns:
        The summary; its keys are listed in the README.
    """
    console = console or Console(quiet=not hosts.is_first())
    began = time.monotonic()
    workdir = Path(workdir)
    job = assemble(config, console)
    result = fit(
        job.task,
        job.source,
        job.evaluators(),
        job.fit,
        workdir,
        restart=restart,
        record=settings.as_json(config),
        made_from=job.made_from,
    )
    if result.interrupted:
        return {"task": job.task.name, "steps": result.steps, "interrupted": True}
    summary = summarise(job, result) | job.export(workdir, result.state, result.predict)
    summary["wall_seconds"] = time.monotonic() - began
    summary["peak_memory_bytes"] = peak_memory_bytes()
    if hosts.is_first():
        results.write(workdir, summary)
    job.show(summary, console)
    console.print(
        f"{summary['steps']:,} steps, {summary['examples_per_second']:,.0f} examples/s, "
        f"{summary['wall_seconds']:.0f} s in all, at most {_gib(summary['peak_memory_bytes'])}; "
        f"written to {workdir}",
        markup=False,
    )
    hosts.barrier("write the summary")
    return summary


def summarise(job: Job, result: FitResult) -> dict[str, Any]:
    """summary.json of a finished training."""
    return {
        "task": job.task.name,
        "source": job.dataset.name,
        "simulated": job.dataset.simulated,
        "steps": result.steps,
        "best_step": result.state_step,
        "seconds": result.seconds,
        "examples_per_second": result.examples_per_second,
        "data_wait_share": result.data_wait_share,
        "params": result.params,
        **job.measured(result.evals),
    }


def _gib(size: int | None) -> str:
    return "an unknown amount of memory" if size is None else f"{size / 2**30:.1f} GiB"


def define_flags() -> None:
    """The flags of the command line; in a function, since other front doors import this one."""
    config_flags.DEFINE_config_file("config", "configs/base.py", "Python file with get_config().")
    flags.DEFINE_string("workdir", None, "Folder of the run; if left out in runs/.")
    flags.DEFINE_integer(
        "interrupted_status",
        0,
        "Exit status of a run that a signal ended; for what starts again only what failed.",
    )
    flags.DEFINE_bool("restart", False, "Delete the run in the working directory first.")


def main(argv: list[str]) -> None:
    """Parses the flags and trains."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --config.seed=1")
    values = flags.FLAGS
    config = settings.loaded(values.config)
    place = config.to_dict().get("hosts", {})
    hosts.start(settings.build(HostsConfig, place, "config.hosts"))
    name = settings.run_name(config_flags.get_config_filename(values["config"]))
    summary = train(config, values.workdir or Path("runs") / name, values.restart)
    if summary.get("interrupted"):
        sys.exit(values.interrupted_status)


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
