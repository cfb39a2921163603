"""What the search found for each row: read, or searched for now."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from umair_jax import results
from umair_jax.sweeps import search
from umair_jax.sweeps.config import SweepConfig, override, read_winners, row_config
from umair_jax.sweeps.runs import Runner

FOLDER = "search"


def chosen(
    made: SweepConfig, workdir: Path, name: str, runner: Runner | None
) -> tuple[ConfigDict, dict[str, Any]]:
    """The config that a row trains with every seed.

    Where the sweep searches and the row has no winner yet, its settings are tried first.

    Args:
        made: The sweep.
        workdir: Its folder.
        name: The row.
        runner: Trains the trials; None = take what has been found, train nothing.

    Returns:
        The config, unlocked, short of its seed, and the winner's dotted options.
    """
    config = row_config(name, made.rows[name], made)
    found = _known(made, workdir)
    if name not in found and made.search.trials and runner:

        def measure(options: Mapping[str, Any]) -> float:
            trial = row_config(name, made.rows[name], made)
            override(trial, options, f"config.search.space of {name}")
            trial.seed = made.search.seed
            try:
                auc = runner(name, trial).summary["validation"]["auc"]
            except FloatingPointError:  # too fast: the settings are the worst, not the sweep's end
                return -math.inf
            return -math.inf if auc is None else auc

        tried = search.settings_of(name, config, made.search)
        path = _folder(made, workdir) / f"{name}.json"
        results.write_text(path, json.dumps(search.best(tried, measure), indent=2) + "\n")
        found = _known(made, workdir)
    options = found.get(name, {})
    override(config, options, f"winner of {name}")
    return config, options


def _known(made: SweepConfig, workdir: Path) -> dict[str, dict[str, Any]]:
    if made.search.winners:
        return read_winners(made.search.winners)
    return {name: row["options"] for name, row in _searched(made, workdir).items()}


def _folder(made: SweepConfig, workdir: Path) -> Path:
    """Another budget, seed or space is another search: its winners are kept apart."""
    text = json.dumps(dataclasses.asdict(made.search), sort_keys=True)
    return workdir / FOLDER / hashlib.sha256(text.encode()).hexdigest()[:10]


def _searched(made: SweepConfig, workdir: Path) -> dict[str, Any]:
    paths = sorted(_folder(made, workdir).glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def as_json(made: SweepConfig, workdir: Path) -> str:
    """All trials and winners with the space that was searched; empty where nothing was."""
    rows = _searched(made, workdir)
    if not rows:
        return ""
    whole = {"space": made.search.space, "seed": made.search.seed, "rows": rows}
    return json.dumps(whole, indent=2) + "\n"
