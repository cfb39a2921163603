"""How good the main job is: over seeds, and what each kind of vector is worth.

    python -m benchmarks.quality [--seeds=0,1,2] [--cases="as it is,without text"] [--config=...]

Trains the config once per seed and case: as it is; with the style, text or content vectors, or both
of the drawings, set to zero, in the items and in the users' interests, for training and test alike;
with those of an untrained image encoder, beside texts and alone; and of an untrained text encoder.
Finished runs in --root are not repeated. Prints one JSON line per run and one per case (mean over
the seeds and standard deviation), and a table of the cases; writes the lines to
benchmarks/results/quality.jsonl.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from benchmarks import machine, report
from umair_jax import settings
from umair_jax.compilation import keep_compiled
from umair_jax.memory import keep_freed_memory
from umair_jax.train import train

WHOLE = "as it is"
CASES: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "without style": {"features.zero": ("style",)},
    "without text": {"features.zero": ("text",)},
    "without content": {"features.zero": ("content",)},
    "without both of the drawing": {"features.zero": ("style", "content")},
    "image encoder untrained": {"extract.image_weights": ""},
    "text encoder untrained": {"extract.text_weights": ""},
    "untrained and without text": {"extract.image_weights": "", "features.zero": ("text",)},
}
COLUMNS = {
    "case": "case",
    "auc": "test AUC",
    "auc_std": "sd",
    "share_auc": "of the way to the oracle",
    "log_loss": "log loss",
    "share_log_loss": "of the way",
    "lost_auc": "AUC lost",
    "lost_auc_std": "sd",
    "seconds": "training, s",
}
MEANS = ("auc", "log_loss", "share_auc", "share_log_loss", "seconds")


def measure(
    config: ConfigDict, seeds: Sequence[int], cases: Sequence[str], root: Path
) -> list[dict[str, Any]]:
    """Trains every case that is not done yet.

    Args:
        config: What to train.
        seeds: Of initial weights, dropout and order; the data stay the same.
        cases: Names of CASES; the first one is what the others are compared with.
        root: Folder of the runs, one below it for each.

    Returns:
        One result per case and seed, then one per case: means over the seeds.
    """
    console = Console(stderr=True)
    rows, where = [], machine.describe()
    for case in cases:
        for seed in seeds:
            changes = CASES[case]
            mine = ConfigDict(config.to_dict())
            mine.update_from_flattened_dict({"seed": seed, **changes})
            machine.progress(f"== {case}, seed {seed}")
            name = f"{case.replace(' ', '-')}-{seed}"
            summary = train(mine.lock(), root / name, console=console)
            row = {"bench": "quality", "case": case, "seed": seed, **_numbers(summary)}
            row |= {"ours": row["auc"], "peer": row["oracle_auc"], "peer_name": "oracle"}
            row |= {"ratio": row["share_auc"], "unit": "test AUC; ratio: share of the way from 0.5"}
            rows.append(row | where)
            report.emit(rows[-1])
    whole = {row["seed"]: row["auc"] for row in rows if row["case"] == cases[0]}
    for case in cases:
        runs = [row for row in rows if row["case"] == case]
        # With the same seed, so that what seeds do to both is not counted.
        lost = [whole[row["seed"]] - row["auc"] for row in runs]
        # Where people are real there is no oracle.
        known = [name for name in MEANS if all(row[name] is not None for row in runs)]
        mean = dict.fromkeys(MEANS) | {
            name: float(np.mean([row[name] for row in runs])) for name in known
        }
        mean |= {"auc_std": _deviation([row["auc"] for row in runs])}
        if case != cases[0]:
            mean |= {"lost_auc": float(np.mean(lost)), "lost_auc_std": _deviation(lost)}
        rows.append({"bench": "quality", "case": f"{case}, mean", "seed": None, **mean, **where})
        report.emit(rows[-1])
    return rows


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _numbers(summary: dict[str, Any]) -> dict[str, Any]:
    test = summary["test"]
    share = summary.get("share_of_oracle", {"auc": None, "log_loss": None})
    return {
        **{name: test[name] for name in ("auc", "auc_low", "auc_high", "log_loss", "gauc", "ece")},
        "oracle_auc": summary.get("oracle", {}).get("auc"),
        "share_auc": share["auc"],
        "share_log_loss": share["log_loss"],
        **{
            name: summary[name]
            for name in ("steps", "best_step", "seconds", "examples_per_second",
                         "data_wait_share", "params")
        },
    }  # fmt: skip


def main(argv: list[str]) -> None:
    """Parses the flags, trains and reports."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --seeds=0,1")
    values = flags.FLAGS
    try:
        seeds = [int(seed) for seed in values.seeds]
    except ValueError:
        raise ValueError(f"--seeds: got {values.seeds}; expected whole numbers: 0,1,2") from None
    unknown = [case for case in values.cases if case not in CASES]
    if unknown or not values.cases:
        raise ValueError(f"--cases: got {unknown}; expected some of: {', '.join(CASES)}")
    keep_compiled(Path(values.root) / "compiled")
    rows = measure(values.config, seeds, values.cases, Path(values.root))
    report.write(rows, Path(values.out))
    means = [row for row in rows if row["seed"] is None]
    report.show(f"Test quality over seeds {values.seeds}, simulated bookmarks", means, COLUMNS)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", "configs/base.py", "Python file with get_config().")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the training.")
    flags.DEFINE_list("cases", list(CASES), "What is trained, the whole first.")
    flags.DEFINE_string("root", "runs/quality", "Folder of the runs.")
    flags.DEFINE_string("out", str(report.RESULTS / "quality.jsonl"), "File for the lines.")
    keep_freed_memory()
    settings.run_front_door(main)
