"""Where numbers go: ``metrics.jsonl`` and TensorBoard, both continued exactly after a resume."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIR = "tensorboard"
PROFILE_DIR = "profile"
FINAL = "final/"


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """What a run writes about itself.

    Attributes:
        progress: show the progress line.
        tensorboard: write TensorBoard events to ``workdir/tensorboard``.
        sharding_table: print where every array of the state lives, once.
        profile_start_step: first step of a jax.profiler trace, in ``workdir/profile``.
        profile_stop_step: step before which the trace ends; the same as the start traces nothing.
    """

    progress: bool = True
    tensorboard: bool = True
    sharding_table: bool = True
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

    def __init__(self, workdir: Path, first_step: int, tensorboard: bool, active: bool) -> None:
        """Opens the files.

        Args:
            workdir: where they are.
            first_step: the step the run goes on from; later lines are removed.
            tensorboard: also write TensorBoard events.
            active: False writes nothing (every host but the first).
        """
        self._file = self._events = None
        if not active:
            return
        path = workdir / METRICS_FILE
        workdir.mkdir(parents=True, exist_ok=True)
        truncate(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            # Events past the restored step are purged by TensorBoard itself.
            self._events = SummaryWriter(
                str(workdir / TENSORBOARD_DIR), purge_step=first_step + 1 if first_step else None
            )

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One line, and one scalar ``kind/name`` a value."""
        if self._file is None:
            return
        line = {"step": step, "kind": kind, **{name: plain(v) for name, v in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", float(value), step)

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


def truncate(path: Path, last_step: int) -> None:
    """Removes lines past ``last_step``, a last line that was cut off, and final results; atomic.

    Final results (``kind`` begins with ``final/``) are written anew whenever a run ends.
    """
    if not path.exists():
        return
    kept = [
        text
        for text, line in _lines(path)
        if line["step"] <= last_step and not str(line.get("kind")).startswith(FINAL)
    ]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(text + "\n" for text in kept), encoding="utf-8")
    temporary.replace(path)


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
