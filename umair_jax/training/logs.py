"""Where numbers go: ``metrics.jsonl`` and TensorBoard, both continued exactly after a resume."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIR = "tensorboard"
PROFILE_DIR = "profile"
TRAIN = "train"
FINAL = "final/"
COST = "cost"


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What a run writes about itself.

    Attributes:
        progress: show the progress line.
        tensorboard: write TensorBoard events to ``workdir/tensorboard``.
        sharding_table: print where every array of the state lives, once.
        cost: count what an update costs (see cost.py) at the start, and at the end say how near
            to the machine's limit it came; compiles the update once more.
        profile_start_step: first step of a jax.profiler trace, in ``workdir/profile``.
        profile_stop_step: step before which the trace ends; the same as the start traces nothing.
    """

    progress: bool = True
    tensorboard: bool = True
    sharding_table: bool = True
    cost: bool = False
    profile_start_step: int = 0
    profile_stop_step: int = 0

    def __post_init__(self) -> None:
        """Checks the trace window."""
        if not 0 <= self.profile_start_step <= self.profile_stop_step:
            raise ValueError(
                f"profile window must satisfy 0 <= start <= stop, got "
                f"{self.profile_start_step} to {self.profile_stop_step}"
            )


class MetricsWriter:
    """Appends one JSON object a line, ``{"step": ..., "kind": ..., name: value, ...}``.

    A line is on disk before the checkpoint of its step is, and lines past the restored step are
    cut off when a run goes on: the file never holds a step twice. Values that are no finite
    numbers are written as null.
    """

    def __init__(
        self,
        workdir: Path,
        first_step: int,
        tensorboard: bool,
        active: bool,
        evaluated: bool = True,
    ) -> None:
        """Opens the files.

        Args:
            workdir: where they are.
            first_step: the step the run goes on from; later lines are removed.
            tensorboard: also write TensorBoard events.
            active: False writes nothing (every host but the first).
            evaluated: the run goes on after the evaluation of ``first_step``; if not, lines of
                that evaluation are removed too.
        """
        self._file = self._events = None
        if not active:
            return
        path = workdir / METRICS_FILE
        workdir.mkdir(parents=True, exist_ok=True)
        kept = truncate(path, first_step, evaluated)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            # TensorBoard itself drops older events from this step on; the suffix keeps two parts
            # of a run that begin within one second in two files.
            self._events = SummaryWriter(
                str(workdir / TENSORBOARD_DIR),
                purge_step=first_step,
                filename_suffix=f".{time.time_ns()}",
            )
            for line in kept:
                if line["step"] == first_step:
                    self._add_scalars(line)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line, and one scalar ``kind/name`` a value."""
        if self._file is None:
            return
        line = {"step": step, "kind": kind, **{name: plain(v) for name, v in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._add_scalars({"step": step, "kind": kind, **values})

    def _add_scalars(self, line: Mapping[str, Any]) -> None:
        if self._events is None:
            return
        for name, value in line.items():
            if name not in ("step", "kind"):
                value = math.nan if value is None else float(value)
                self._events.add_scalar(f"{line['kind']}/{name}", value, line["step"])

    def flush(self) -> None:
        """Everything written so far reaches the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes; a second call does nothing."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()
            self._events = None


def read(workdir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, in order; a half-written last line is left out."""
    path = workdir / METRICS_FILE
    return [line for _, line in _lines(path)] if path.exists() else []


def truncate(path: Path, last_step: int, evaluated: bool = True) -> list[dict[str, Any]]:
    """Removes what a run that goes on from ``last_step`` will write (again); atomic.

    That is: later lines, a last line that was cut off, final results (``kind`` begins with
    ``final/``), which are written whenever a run ends, and, unless ``evaluated``, the evaluation
    of ``last_step``.

    Returns:
        The lines that stay.
    """
    if not path.exists():
        return []
    kept = [
        (text, line)
        for text, line in _lines(path)
        if not str(line.get("kind")).startswith(FINAL)
        and (line["step"], line.get("kind") != TRAIN) <= (last_step, evaluated)
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(text + "\n" for text, _ in kept), encoding="utf-8")
    temporary.replace(path)
    return [line for _, line in kept]


def plain(value: Any) -> Any:
    """A number that JSON knows: NaN and infinities become None."""
    value = float(value)
    return value if math.isfinite(value) else None


def _lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append((text, line))
    return lines
