"""A request to stop (SIGTERM, Ctrl-C) becomes a flag that the loop reads between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Catches SIGTERM and SIGINT while it is entered.

    A second Ctrl-C interrupts at once. Outside of the main thread, where Python cannot set signal
    handlers, nothing is caught.

    With several hosts nothing must be caught here: all of them have to stop at the same step, and
    JAX's preemption service, which sees to that, listens for SIGTERM itself
    (``Checkpoints.reached_preemption``).

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self, catch: bool = True) -> None:
        """``catch`` False leaves the signals alone."""
        self.requested = False
        self._catch = catch
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        """Installs the handlers."""
        if self._catch and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *exception: object) -> None:
        """Puts the previous handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
