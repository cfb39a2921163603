"""A finished run of the ranker as a folder that other programs serve from.

    python -m umair_jax.export --workdir=runs/base [--checkpoint=best|newest|STEP] [--out=FOLDER]

writes into FOLDER (runs/base/serving if left out) the ranker as StableHLO for CPU, CUDA and TPU and
for batches of any size, its weights, and what it knows of every user and item after the log. JAX
and NumPy score with it; see docs/serving.md.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console

from umair_jax import __version__, load_run, settings
from umair_jax.data import snapshot
from umair_jax.jobs.bookmarks import BookmarksJob
from umair_jax.memory import keep_freed_memory
from umair_jax.models.rankers import UMAIR_FPS
from umair_jax.serving import folder, programs, sides, stablehlo
from umair_jax.serving.programs import ITEM_TOWER, MATCH, SCORER, USER_TOWER, Weights
from umair_jax.serving.stablehlo import Exported
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import state as states
from umair_jax.training.record import digest

FOLDER = "serving"
TASK = "bookmarks"


def export(
    workdir: str | Path,
    checkpoint: str = "best",
    out: str | Path | None = None,
    console: Console | None = None,
) -> Path:
    """Writes the folder of a run.

    Args:
        workdir: Folder of a run of the ranker.
        checkpoint: best, newest, or the number of updates behind it.
        out: Folder to write; `serving` in the run's folder if left out. An earlier export of the
            same run is replaced.
        console: Where notices go.

    Returns:
        Where the export is.

    Raises:
        ValueError: There is no such run or checkpoint, it is of another task, or the folder holds
            something else.
    """
    console = console or Console()
    workdir = Path(workdir)
    path = Path(out) if out else workdir / FOLDER
    record = load_run.recorded(workdir)
    check(workdir, record)
    folder.check(path, digest(record["config"]))

    run = load_run.load(workdir, checkpoint, console)
    job = run.job
    assert isinstance(job, BookmarksJob)  # by its task
    assert isinstance(job.task, BookmarksTask)
    bank = job.bank()
    latest = snapshot.latest(job.dataset, bank, job.data, job.features)
    users, items = sides.both(job.dataset, latest, job.task.config)
    weights = Weights.of(*states.judged(run.state))
    made = exported(job, weights, users, items)
    facts = _facts(job, record, run.step)
    sizes = folder.write(path, facts, made, weights.arrays, users, items, bank)

    listed = "\n".join(f"  {name:<22}{size:>14,} bytes" for name, size in sizes.items())
    console.print(
        f"Checkpoint {run.step:,} of {workdir}: {len(users.ids) - 1:,} users and "
        f"{len(items.ids) - 1:,} items in {path}\n{listed}"
    )
    return path


def check(workdir: Path, record: Mapping[str, Any]) -> None:
    """Makes sure that a run is of a ranker.

    Raises:
        ValueError: It is not; before anything long is done.
    """
    task = record["config"].get("task", TASK)
    if task != TASK:
        raise ValueError(
            f"{workdir}: got a run of the task {task!r}; expected {TASK!r}: what is served is a "
            "ranker; name the folder of a run of configs/base.py"
        )


def exported(
    job: BookmarksJob, weights: Weights, users: sides.Side, items: sides.Side
) -> dict[str, Exported]:
    """Every program of the ranker, in the order of their use."""
    made = programs.make(job.task.config, weights)
    user, item = users.arrays, items.arrays
    found = {SCORER: stablehlo.exported(made[SCORER], weights.arrays, user=user, item=item)}
    if MATCH in made:
        of_user = stablehlo.exported(made[USER_TOWER], weights.arrays, user=user)
        of_item = stablehlo.exported(made[ITEM_TOWER], weights.arrays, item=item)
        towers = {"user": of_user.outputs, "item": of_item.outputs}
        matched = stablehlo.exported(made[MATCH], weights.arrays, **towers)
        found |= {USER_TOWER: of_user, ITEM_TOWER: of_item, MATCH: matched}
    return found


def _facts(job: BookmarksJob, record: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What one has to know to get this export again, and to read its arrays."""
    config, moment = record["config"], snapshot.moment_after(job.dataset)
    return {
        "ranker": config.get("model", {}).get("name", UMAIR_FPS),
        "source": job.dataset.name,
        "simulated": job.dataset.simulated,
        "as_of": datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(),
        "checkpoint": step,
        folder.CONFIG: digest(config),
        "data_fingerprint": job.dataset.fingerprint,
        "versions": {"umair_jax": __version__, "jax": jax.__version__},
        "trained_with": record.get("versions", {}),
        "platforms": stablehlo.PLATFORMS,
        "present": job.task.config.modality_names,
        "weighted": job.task.modality_names,
        "fields": folder.fields(job.data.schema),
    }


def define_flags() -> None:
    """The flags of the command line; in a function, since tests call it again."""
    flags.DEFINE_string("workdir", None, "Folder of a run.")
    flags.DEFINE_string("checkpoint", "best", "best, newest, or a number of updates.")
    flags.DEFINE_string("out", None, f"Folder to write; {FOLDER} in the run's folder if left out.")


def main(argv: list[str]) -> None:
    """Parses the flags and exports."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --workdir=runs/one")
    values = flags.FLAGS
    if not values.workdir:
        raise ValueError("--workdir: got nothing; expected the folder of a run, like runs/base")
    export(values.workdir, values.checkpoint, values.out)


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
