"""A run that is killed again and again against one that is left alone: the same, bit for bit?

    python -m benchmarks.soak [--kills=20] [--seed=0] [--config=configs/smoke.py]

Trains a config once in peace. Then starts the same command in another folder, kills it (SIGKILL,
no chance to tidy up) at a random moment between its start and --longest seconds later, starts it
again, and so on; at the end it may finish. Compares every array of the last checkpoint, every line
of metrics.jsonl and all predictions. Prints one JSON line and writes it to
benchmarks/results/soak.jsonl; the exit status is 1 if anything differs.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console

from benchmarks import machine, report
from umair_jax import load_run, settings
from umair_jax.jobs.bookmarks import PREDICTIONS
from umair_jax.training import logs
from umair_jax.training.checkpoints import CHECKPOINT_DIR
from umair_jax.training.fingerprint import fingerprint


def soak(command: list[str], root: Path, kills: int, longest: float, seed: int) -> dict[str, Any]:
    """Trains in peace and under fire, and compares.

    Args:
        command: What trains, short of --workdir.
        root: Folder of both runs; what is there goes.
        kills: How many times the second is killed.
        longest: Seconds after its start that a kill comes at the latest.
        seed: Of the moments.

    Returns:
        "kills", "while_saving" (those that met a half-written checkpoint), "steps" at each kill,
        "state_equal", "metrics_equal", "predictions_equal", "equal" (all three), "seconds".
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    peace, fire, began = root / "peace", root / "fire", time.monotonic()
    subprocess.run([*command, f"--workdir={peace}"], check=True, stdout=subprocess.DEVNULL)
    rng, steps, saving = np.random.default_rng(seed), [], 0
    while len(steps) < kills:
        with open(root / "fire.log", "a", encoding="utf-8") as log:
            process = subprocess.Popen([*command, f"--workdir={fire}"], stdout=log, stderr=log)
        try:
            process.wait(rng.uniform(0.0, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            saving += _half_written(fire)
            steps.append(_newest(fire))
            machine.progress(f"kill {len(steps)} of {kills}: checkpoint {steps[-1]}")
            continue
        if process.returncode:
            raise RuntimeError(f"the run failed by itself; see {root / 'fire.log'}")
        raise ValueError(
            f"--steps: the run was done after {len(steps)} kills; expected more steps, so that "
            f"it lives through {kills}"
        )
    subprocess.run([*command, f"--workdir={fire}"], check=True, stdout=subprocess.DEVNULL)
    found = {
        "kills": kills,
        "while_saving": saving,
        "steps": steps,
        "state_equal": _state(peace) == _state(fire),
        "metrics_equal": logs.read(peace) == logs.read(fire),
        "predictions_equal": _predictions_equal(peace, fire),
    }
    found["equal"] = all(value for name, value in found.items() if name.endswith("_equal"))
    return found | {"seconds": time.monotonic() - began}


def _checkpoints(workdir: Path) -> list[Path]:
    folder = workdir / CHECKPOINT_DIR
    return list(folder.iterdir()) if folder.exists() else []


def _newest(workdir: Path) -> int:
    return max((int(p.name) for p in _checkpoints(workdir) if p.name.isdecimal()), default=0)


def _half_written(workdir: Path) -> bool:
    return any("tmp" in path.name for path in _checkpoints(workdir))


def _state(workdir: Path) -> tuple[int, dict[str, int]]:
    run = load_run.load(workdir, "newest", Console(quiet=True))
    return run.step, fingerprint(run.state)


def _predictions_equal(one: Path, other: Path) -> bool:
    with np.load(one / PREDICTIONS) as left, np.load(other / PREDICTIONS) as right:
        return left.files == right.files and all(
            np.array_equal(left[name], right[name]) for name in left.files
        )


def main(argv: list[str]) -> None:
    """Parses the flags, soaks and reports."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --kills=20")
    values = flags.FLAGS
    root = Path(values.root)
    command = [
        *(sys.executable, "-m", "umair_jax.train", f"--config={values.config}"),
        f"--config.train.steps={values.steps}",
        "--config.train.checkpoint_every_steps=10",
        "--config.train.eval_every_steps=50",
        "--config.log.sharding_table=False",
    ]
    found = soak(command, root, values.kills, values.longest, values.seed)
    row = {"bench": "soak", "config": values.config, "total_steps": values.steps, **found}
    row |= machine.describe()
    report.emit(row)
    report.write([row], Path(values.out))
    sys.exit(0 if row["equal"] else 1)


if __name__ == "__main__":
    flags.DEFINE_string("config", "configs/smoke.py", "What is trained.")
    flags.DEFINE_integer("kills", 20, "How many times the second run is killed.", lower_bound=1)
    flags.DEFINE_integer("steps", 1500, "Updates of a whole run.", lower_bound=1)
    flags.DEFINE_float("longest", 20.0, "Seconds from a start to its kill, at most.")
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_string("root", "runs/soak", "Folder of both runs.")
    flags.DEFINE_string("out", str(report.RESULTS / "soak.jsonl"), "File for the line.")
    settings.run_front_door(main)
