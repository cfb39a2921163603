"""How far something is that is done to every picture, or to every user."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class EncodingProgress:
    """A bar on a terminal, a line every ten seconds elsewhere: rate and time left."""

    def __init__(
        self,
        total: int,
        console: Console,
        every_secs: float = 10.0,
        what: str = "Extracting",
        unit: str = "images",
    ):
        self._what, self._unit = what, unit
        self._total, self._console, self._every = total, console, every_secs
        self._done = 0
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total, speed="")

    def __enter__(self) -> EncodingProgress:
        self._began = self._spoke = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, count: int) -> None:
        """Counts what is finished."""
        self._done += count
        now = time.monotonic()
        rate = self._done / max(now - self._began, 1e-9)
        speed = f"{rate:.0f} {self._unit}/s, {(self._total - self._done) / rate:.0f} s left"
        self._bar.update(self._task, completed=self._done, speed=speed)
        if not self._console.is_terminal and now - self._spoke > self._every:
            self._spoke = now
            done = f"{self._done:,}/{self._total:,} {self._unit}"
            self._console.print(f"{self._what} {done}, {speed}")
