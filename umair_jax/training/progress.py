"""The progress line: step, examples a second, how long the devices wait for data, time left."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping


class Progress:
    """Speed of a run, and its line on the screen.

    On a terminal one line is rewritten in place; elsewhere a line is printed for each report.
    Evaluation, checkpoints and the first step (compilation) do not count as training time.
    """

    def __init__(
        self,
        first: int,
        total: int,
        batch_size: int,
        show: bool = True,
        out: io.TextIOBase | None = None,
        spent: Mapping[str, float] | None = None,
    ) -> None:
        """Starts the clock.

        Args:
            first: updates made before.
            total: updates at the end.
            batch_size: examples an update.
            show: print at all.
            out: where to print; standard output if None.
            spent: what :attr:`spent` was when the run was cut off; its time is counted on.
        """
        spent = spent or {}
        self._total, self._batch_size = total, batch_size
        self._out = out or sys.stdout
        self._show = show
        self._live = show and self._out.isatty()
        self._step = first
        self._steps = int(spent.get("steps", 0))
        self._seconds = float(spent.get("seconds", 0.0))
        self._waited = float(spent.get("waited", 0.0))
        self._started = False
        self._began: float | None = None
        self._drawn = 0.0

    def waited(self, seconds: float) -> None:
        """Adds time spent on getting a batch, if the step counts."""
        if self._began is not None:
            self._waited += seconds

    def stepped(self, step: int) -> None:
        """An update was handed to the device; the first call starts the clock."""
        now = time.perf_counter()
        self._step = step
        if self._began is None:
            self._began, self._started = now, True
            return
        self._steps += 1
        self._seconds += now - self._began
        self._began = now
        if self._live and now - self._drawn > 0.2:
            self._drawn = now
            self._out.write(f"\r\x1b[2K{self.line()}")
            self._out.flush()

    def pause(self) -> None:
        """Something else than training begins."""
        if self._began is not None:
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def go_on(self) -> None:
        """Training goes on after :meth:`pause`."""
        if self._started:
            self._began = time.perf_counter()

    def report(self, values: Mapping[str, float]) -> None:
        """A line that stays, with the given metrics; on a terminal it is only redrawn."""
        if self._live:
            self._out.write(f"\r\x1b[2K{self.line(values)}")
            self._out.flush()
        elif self._show:
            print(self.line(values), file=self._out, flush=True)

    def say(self, text: str) -> None:
        """A message of its own, above the progress line."""
        if self._show:
            print(f"\r\x1b[2K{text}" if self._live else text, file=self._out, flush=True)

    def line(self, values: Mapping[str, float] | None = None) -> str:
        """The progress line as text."""
        shown = "".join(f"  {name} {value:.4f}" for name, value in (values or {}).items())
        if not self._steps:
            return f"step {self._step:,}/{self._total:,}{shown}"
        left = (self._total - self._step) * self._seconds / self._steps
        return (
            f"step {self._step:,}/{self._total:,}  {self.examples_per_second:,.0f} examples/s  "
            f"data wait {self.data_wait_share:.1%}  ETA {_clock(left)}{shown}"
        )

    @property
    def spent(self) -> dict[str, float]:
        """Counted steps, their seconds, and the seconds of them spent waiting for data."""
        return {"steps": float(self._steps), "seconds": self._seconds, "waited": self._waited}

    @property
    def seconds(self) -> float:
        """Training time so far, without compilation, evaluation and checkpoints."""
        return self._seconds

    @property
    def examples_per_second(self) -> float:
        """Examples per second of training time; 0 before the second step."""
        return self._steps * self._batch_size / self._seconds if self._seconds else 0.0

    @property
    def step_seconds(self) -> float:
        """Training time of an update, the mean; 0 before the second step."""
        return self._seconds / self._steps if self._steps else 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of the training time in which the devices waited for a batch, in [0, 1]."""
        return self._waited / self._seconds if self._seconds else 0.0


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
