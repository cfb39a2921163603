"""One run of a sweep: trained once, kept in a folder named by all its options, read ever after."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import results, settings
from umair_jax.jobs import Job, bookmarks
from umair_jax.jobs.bookmarks import Loaded
from umair_jax.train import train


class SweepInterruptedError(Exception):
    """A signal ended a run; the same command goes on with it."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished run left behind.

    Attributes:
        workdir: Its folder.
        summary: Its summary.json.
    """

    workdir: Path
    summary: dict[str, Any]

    def predictions(self) -> dict[str, np.ndarray]:
        """The test examples: "label", "user", "item", "probability" [E] and "weights" [E, M]."""
        with np.load(self.workdir / bookmarks.PREDICTIONS, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


class Runner:
    """Trains runs below a folder; runs of the same data share it in memory."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._key = ""
        self._data: Loaded | None = None

    def folder(self, name: str, config: ConfigDict) -> Path:
        """Where the run of a config is: by name, seed and a digest of everything it says."""
        return self.root / (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") + _ending(config))

    def done(self, config: ConfigDict) -> Run | None:
        """The run, if it was finished before: for this row, or for another that says the same."""
        for workdir in sorted(self.root.glob("*" + _ending(config))):
            summary = results.read(workdir)
            if (workdir / bookmarks.PREDICTIONS).exists() and "test" in summary:
                return Run(workdir, summary)
        return None

    def __call__(self, name: str, config: ConfigDict) -> Run:
        """Trains a config, or reads what it gave.

        Raises:
            SweepInterruptedError: A signal came; what was trained so far is kept.
            ValueError: The config or the data cannot be used.
        """
        found = self.done(config)
        if found:
            return found
        workdir = self.folder(name, config)
        quiet = Console(quiet=True)
        summary = train(config, workdir, console=quiet, assemble=self._assemble)
        if summary.get("interrupted"):
            raise SweepInterruptedError(f"{workdir}: interrupted; the same command goes on with it")
        return Run(workdir, results.read(workdir))

    def _assemble(self, config: ConfigDict, console: Console) -> Job:
        named = {name: config[name] for name in bookmarks.DATA_SECTIONS}
        key = json.dumps(settings.as_json(ConfigDict(named)), sort_keys=True)
        if key != self._key:
            self._data = None  # one data set in memory, not two
            self._key, self._data = key, bookmarks.load(config, console)
        # A protocol's attributes can be set, a frozen dataclass's not: hence Any.
        job: Any = bookmarks.assemble(config, console, self._data)
        return job


def _ending(config: ConfigDict) -> str:
    text = json.dumps(settings.as_json(config), sort_keys=True)
    return f"-seed{config.seed}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
