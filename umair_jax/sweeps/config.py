"""What a sweep is: rows of a table, seeds, and the search of each row's hyper-parameters."""

from __future__ import annotations

import dataclasses
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from umair_jax import settings

# Neither changes what a run computes: tables and lines of many runs would bury each other.
QUIET = {"log": {"progress": False, "tensorboard": False, "sharding_table": False}}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        config: File of a config and what follows its colon, "configs/baselines.py:deepfm,sparse".
        overrides: Nested options of that config, {"model": {"dropout": 0.2}}.
        label: How the table calls it; the row's own name if empty.
        features: What the model sees, in the words of the table.
    """

    config: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    features: str = ""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The same small budget for every row.

    Attributes:
        trials: Settings tried for each row, its own ones first; 0 = no search.
        seed: Seed of the settings drawn, and of the runs that try them.
        space: Option -> values, nested as in the configs; options that a row does not have are
            left out for it.
        winners: File of an earlier search whose settings are used in place of a new one.
    """

    trials: int = 0
    seed: int = 0
    space: dict[str, Any] = dataclasses.field(default_factory=dict)
    winners: str = ""

    def __post_init__(self):
        if self.trials < 0:
            raise ValueError(f"trials: got {self.trials}, expected 0 or more")
        if self.trials and self.winners:
            raise ValueError(
                f"trials: got {self.trials} beside winners {self.winners!r}, expected one of them"
            )


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A table.

    Attributes:
        title: What stands above it.
        rows: Name -> row, in the order of the table.
        reference: The row that all others are compared with.
        seeds: Of every row: initial weights, dropout, order; the data stay the same.
        overrides: Options of every row.
        draws: Bootstrap draws behind the p-values.
        search: Search of hyper-parameters.
    """

    title: str
    rows: dict[str, Row]
    reference: str
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    draws: int = 1000
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)

    def __post_init__(self):
        if self.reference not in self.rows:
            raise ValueError(
                f"reference: got {self.reference!r}, expected one of {', '.join(self.rows)}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: got {self.seeds}, expected one or more, each once")
        if self.draws < 1:
            raise ValueError(f"draws: got {self.draws}, expected 1 or more")


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names of the leaves: {"model": {"dropout": 0}} -> {"model.dropout": 0}."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def row_config(name: str, row: Row, sweep: SweepConfig) -> ConfigDict:
    """The config that a row trains, short of its seed and what a search found.

    Raises:
        ValueError: The file or its argument is not known, or an option is not one of its own.
    """
    path, _, argument = row.config.partition(":")
    if not Path(path).is_file():
        raise ValueError(
            f"config.rows.{name}.config: got {path!r}, expected a file with get_config(); run from "
            "the folder that holds configs/"
        )
    get_config = runpy.run_path(path)["get_config"]
    config = get_config(argument) if argument else get_config()
    for overrides in (QUIET, sweep.overrides, row.overrides):
        override(config, flat(overrides), f"config.rows.{name}.overrides")
    return config


def override(config: ConfigDict, values: Mapping[str, Any], where: str) -> None:
    """Sets options by dotted name.

    Raises:
        ValueError: The config has no such option, or another type there.
    """
    for name, value in values.items():
        if not has(config, name):
            raise ValueError(f"{where}: got {name!r}, expected an option of that config")
        try:
            config.update_from_flattened_dict({name: value})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}.{name}: got {value!r}; {error}") from error


def has(config: ConfigDict, name: str) -> bool:
    """Whether the config has an option of this dotted name."""
    node: Any = config
    for step in name.split("."):
        if not isinstance(node, ConfigDict) or step not in node:
            return False
        node = node[step]
    return True


def build(config: ConfigDict) -> SweepConfig:
    """The sweep of a config file, every row's config checked.

    Raises:
        ValueError: An unknown key or value, in the sweep or in one of its rows.
    """
    sweep = settings.build(SweepConfig, config.to_dict(), "config")
    for name, row in sweep.rows.items():
        row_config(name, row, sweep)
    return sweep


def read_winners(path: str) -> dict[str, dict[str, Any]]:
    """Row -> dotted options, of an earlier search.

    Raises:
        ValueError: There is no such file, or it is not a search's.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
        return {name: dict(row["options"]) for name, row in found["rows"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"config.search.winners: got {path!r} ({error}); expected winners.json of a sweep"
        ) from error
