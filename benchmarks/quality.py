"""How good the main job is: over seeds, and what each kind of vector is worth.

    python -m benchmarks.quality [--seeds=0,1,2] [--config=configs/base.py]

Trains the config once per seed, and with the first seed once more for each of style, text and
content with these vectors set to zero, in the items and in the users' interests, for training and
test alike. Finished runs in --root are not repeated. Prints one JSON line per run and a table, and
writes the lines to benchmarks/results/quality.jsonl.
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
from umair_jax.memory import keep_freed_memory
from umair_jax.train import train

ZEROED = ("style", "text", "content")
COLUMNS = {
    "case": "case",
    "auc": "test AUC",
    "share_auc": "of the way to the oracle",
    "log_loss": "log loss",
    "share_log_loss": "of the way",
    "lost_auc": "AUC lost",
    "seconds": "training, s",
}


def measure(config: ConfigDict, seeds: Sequence[int], root: Path) -> list[dict[str, Any]]:
    """Trains every case that is not done yet.

    Args:
        config: What to train.
        seeds: Of initial weights, dropout and order; the data stay the same.
        root: Folder of the runs, one below it for each.

    Returns:
        One result per case, then their mean over the seeds.
    """
    console = Console(stderr=True)
    first = seeds[0]
    cases = {f"seed {seed}": {"seed": seed} for seed in seeds}
    cases |= {f"without {name}": {"seed": first, "features.zero": (name,)} for name in ZEROED}
    rows, where = [], machine.describe()
    for case, changes in cases.items():
        mine = ConfigDict(config.to_dict())
        mine.update_from_flattened_dict(changes)
        machine.progress(f"== {case}")
        summary = train(mine.lock(), root / case.replace(" ", "-"), console=console)
        row = {"bench": "quality", "case": case, "seed": mine.seed, **_numbers(summary)}
        row |= {"ours": row["auc"], "peer": row["oracle_auc"], "peer_name": "oracle"}
        row |= {"ratio": row["share_auc"], "unit": "test AUC; ratio: share of the way from 0.5"}
        # What another case loses against the whole with the same seed.
        row["lost_auc"] = rows[0]["auc"] - row["auc"] if len(rows) >= len(seeds) else None
        rows.append(row | where)
        report.emit(rows[-1])
    whole = rows[: len(seeds)]
    names = ("auc", "log_loss", "share_auc", "share_log_loss", "seconds")
    mean: dict[str, Any] = {name: float(np.mean([row[name] for row in whole])) for name in names}
    if len(seeds) > 1:
        mean["auc_std"] = float(np.std([row["auc"] for row in whole], ddof=1))
    rows.append({"bench": "quality", "case": "mean of seeds", "seed": None, **mean, **where})
    report.emit(rows[-1])
    return rows


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
    rows = measure(values.config, seeds, Path(values.root))
    report.write(rows, Path(values.out))
    report.show("Test quality, simulated bookmarks", rows, COLUMNS)


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", "configs/base.py", "Python file with get_config().")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the training.")
    flags.DEFINE_string("root", "runs/quality", "Folder of the runs.")
    flags.DEFINE_string("out", str(report.RESULTS / "quality.jsonl"), "File for the lines.")
    keep_freed_memory()
    settings.run_front_door(main)
