"""Checkpoints of a run.

Checkpoint ``s`` is the state after ``s`` updates together with the ledger (JSON); the data need no
state of their own, for batch ``s`` comes next. Written by Orbax in the background, committed
atomically, restored onto any mesh, compared with what was saved. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging

from umair_jax import hosts
from umair_jax.training.fingerprint import checksum, fingerprint
from umair_jax.training.ledger import Ledger
from umair_jax.training.logs import METRICS_FILE, PROFILE_DIR, TENSORBOARD_DIR
from umair_jax.training.record import CONFIG_FILE

CHECKPOINT_DIR = "checkpoints"
UNREADABLE_DIR = "unreadable_checkpoints"
SUMMARY_FILE = "summary.json"


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which states of a run are kept.

    Attributes:
        keep: newest checkpoints kept; the best one is kept besides.
        best_metric: ``evaluator/metric`` that decides which state is the best, e.g. ``valid/auc``;
            empty for none.
        best_mode: ``max`` or ``min``.
        restore_best: end with the best state instead of the last one.
    """

    keep: int = 2
    best_metric: str = ""
    best_mode: str = "max"
    restore_best: bool = True

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.keep < 1:
            raise ValueError(f"checkpoint.keep must be 1 or more, got {self.keep}")
        if self.best_mode not in ("max", "min"):
            raise ValueError(f"unknown best_mode {self.best_mode!r}; allowed: max, min")
        if self.best_metric and "/" not in self.best_metric:
            raise ValueError(
                f"best_metric is 'evaluator/metric', e.g. 'valid/auc', got {self.best_metric!r}"
            )


class Checkpoints:
    """The checkpoints of one working directory."""

    def __init__(
        self,
        workdir: Path,
        config: CheckpointConfig | None = None,
        say: Callable[[str], None] = logging.warning,
        read_only: bool = False,
    ) -> None:
        """Opens the directory; what an interrupted save left behind is removed.

        Args:
            workdir: directory of the run.
            config: which ones are kept.
            say: how to tell the user that a checkpoint could not be read.
            read_only: change nothing in the directory (a run may be writing to it).
        """
        self._read_only = read_only
        config = config or CheckpointConfig()
        self._workdir = Path(workdir).absolute()
        self._say = say
        self._keep = _KeepNewestAndBest(config.keep)
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=not self._read_only,
            preservation_policy=self._keep,
            read_only=self._read_only,
        )
        return ocp.CheckpointManager(
            self._workdir / CHECKPOINT_DIR, options=options, item_names=("state", "ledger")
        )

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, ledger: Ledger, replace: bool = False) -> bool:
        """Starts to write checkpoint ``step``; False if it exists already.

        Returns as soon as the arrays are copied: the caller may donate them to the next update.

        Args:
            step: updates made.
            state: state after them.
            ledger: what goes with it.
            replace: write an existing one anew, provided that another one is there meanwhile.
        """
        present = self._manager.all_steps()
        if step in present:
            if not replace or len(present) == 1:
                return False
            self._manager.delete(step)
        self._keep.best_step = ledger.best_step
        record = _seal(ledger.to_json() | {"fingerprint": fingerprint(state)})
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), ledger=ocp.args.JsonSave(record)
            ),
            force=True,
        )
        return True

    def restore_newest(self, abstract: Any) -> tuple[int, Any, Ledger] | None:
        """The newest checkpoint that can be read; None if there are none at all.

        Unreadable newer ones are moved to ``unreadable_checkpoints``, and the user is told.

        Raises:
            ValueError: there are checkpoints, but none can be read.
        """
        failures: list[tuple[int, Exception]] = []
        for step in reversed(self.steps()):
            try:
                state, ledger = self._read(step, abstract)
            except Exception as error:
                # Whatever is wrong with the files, the one before may be whole.
                failures.append((step, error))
                continue
            self._set_aside(failures, step)
            self._keep.best_step = ledger.best_step
            return step, state, ledger
        if failures:
            listed = "\n".join(f"  step {step}: {_first_line(error)}" for step, error in failures)
            raise ValueError(
                f"no checkpoint in {self._workdir / CHECKPOINT_DIR} can be read:\n{listed}\n"
                f"Give another workdir, or restart the run (its checkpoints are then deleted)"
            )
        return None

    def restore(self, step: int, abstract: Any) -> tuple[Any, Ledger]:
        """State and ledger of one checkpoint, placed as ``abstract`` says.

        Raises:
            ValueError: the checkpoint is not there or cannot be read.
        """
        if step not in self.steps():
            raise ValueError(f"no checkpoint {step} in {self._workdir}; have: {self.steps()}")
        try:
            return self._read(step, abstract)
        except Exception as error:
            raise ValueError(
                f"checkpoint {step} in {self._workdir} cannot be read ({_first_line(error)}); "
                f"there are besides: {[other for other in self.steps() if other != step]}"
            ) from error

    def reached_preemption(self, step: int) -> bool:
        """Whether the cluster's scheduler asked any host to stop; the same answer on all hosts."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when every started save is committed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves and releases the directory."""
        self._manager.close()

    def _read(self, step: int, abstract: Any) -> tuple[Any, Ledger]:
        """State and ledger of one checkpoint; raises anything if its files are damaged."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), ledger=ocp.args.JsonRestore()
            ),
        )
        state, record = restored["state"], restored["ledger"]
        if _seal(record) != record:
            raise ValueError("the ledger is not what was saved: damaged files")
        saved, found = record["fingerprint"], fingerprint(state)
        damaged = [path for path, value in found.items() if saved.get(path) != value]
        if damaged:
            raise ValueError(f"values are not those that were saved: {', '.join(damaged)}")
        return state, Ledger.from_json(record)

    def _set_aside(self, failures: Sequence[tuple[int, Exception]], good: int) -> None:
        if not failures:
            return
        for step, error in failures:
            moved = "" if self._read_only else f"moved to {UNREADABLE_DIR}/{step}, "
            self._say(
                f"checkpoint {step} cannot be read ({_first_line(error)}); "
                f"{moved}going on from checkpoint {good}"
            )
            if hosts.is_first() and not self._read_only:
                target = self._workdir / UNREADABLE_DIR / str(step)
                target.parent.mkdir(exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
                (self._workdir / CHECKPOINT_DIR / str(step)).rename(target)
        if self._read_only:
            return
        hosts.barrier("set aside")
        self._manager.close()
        self._manager = self._open()


def load(workdir: Path, abstract: Any, which: str = "best") -> tuple[int, Any, Ledger]:
    """A state of a finished or running run, for evaluation and export.

    Args:
        workdir: directory of the run.
        abstract: shapes and shardings (``state.abstract_state``).
        which: ``best`` (the newest, if the run keeps no best), ``newest``, or a step.

    Returns:
        Step, state and ledger.

    Raises:
        ValueError: no such checkpoint, or it cannot be read.
    """
    if which not in ("best", "newest") and not which.isdecimal():
        raise ValueError(f"unknown checkpoint {which!r}; allowed: best, newest, or a step")
    if not (Path(workdir) / CHECKPOINT_DIR).is_dir():
        raise ValueError(f"no checkpoint in {workdir}; train first, or name another workdir")
    checkpoints = Checkpoints(workdir, say=print, read_only=True)
    try:
        newest = checkpoints.restore_newest(abstract)
        if newest is None:
            raise ValueError(f"no checkpoint in {workdir}; train first, or name another workdir")
        step, _, ledger = newest
        wanted = step
        if which == "best" and ledger.best_step >= 0:
            wanted = ledger.best_step
        elif which not in ("best", "newest"):
            wanted = int(which)
        return newest if wanted == step else (wanted, *checkpoints.restore(wanted, abstract))
    finally:
        checkpoints.close()


def clear(workdir: Path) -> None:
    """Removes the training of a run: checkpoints, logs, configuration and summary, nothing else.

    What the run exported stays until another one takes its place.
    """
    workdir = Path(workdir)
    for name in (CHECKPOINT_DIR, UNREADABLE_DIR, TENSORBOARD_DIR, PROFILE_DIR):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in (CONFIG_FILE, SUMMARY_FILE, METRICS_FILE):
        (workdir / name).unlink(missing_ok=True)


class _KeepNewestAndBest:
    """Orbax's preservation policy: the newest ``keep`` checkpoints and the best one."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.best_step = -1

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        first = len(checkpoints) - self._keep
        return [i >= first or info.step == self.best_step for i, info in enumerate(checkpoints)]


def _seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a checksum of everything else in it."""
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return rest | {"checksum": checksum(json.dumps(rest, sort_keys=True))}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"
