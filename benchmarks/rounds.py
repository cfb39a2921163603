"""Several ways to do the same work, measured in rounds that take turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import machine

# Between two rounds, so that threads of the last one that still spin come to rest.
_PAUSE_SECONDS = 0.05


class Contender:
    """A piece of work, repeated in rounds of about the same length."""

    def __init__(
        self,
        name: str,
        dispatch: Callable[[], object],
        wait: Callable[[object], object],
        items: int,
        round_seconds: float,
    ) -> None:
        """Runs the work twice: once to compile it, once to find out how often makes a round.

        Args:
            name: What it is called in results.
            dispatch: Begins the work.
            wait: Returns when what `dispatch` returned is there, and all work before it.
            items: Images that it handles.
            round_seconds: Length of a round.
        """
        self.name, self.items = name, items
        self._dispatch, self._wait = dispatch, wait
        self.usage = machine.Usage()
        self._run(1)
        began = time.perf_counter()
        self._run(1)
        self.repeats = max(1, math.ceil(round_seconds / (time.perf_counter() - began)))

    def _run(self, repeats: int) -> None:
        result = None
        for _ in range(repeats):
            result = self._dispatch()
        self._wait(result)

    def round(self) -> None:
        """Runs and measures one round."""
        time.sleep(_PAUSE_SECONDS)
        with self.usage.round():
            self._run(self.repeats)

    @property
    def seconds(self) -> float:
        """Wall time of the work, median over the rounds."""
        return float(np.median(self.usage.seconds)) / self.repeats

    @property
    def fastest_seconds(self) -> float:
        """Wall time of the work in the fastest round."""
        return min(self.usage.seconds) / self.repeats

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the work, mean over the rounds."""
        return self.usage.cpu_seconds / (len(self.usage.seconds) * self.repeats)

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.items / self.seconds


def take_turns(contenders: Sequence[Contender], rounds: int) -> None:
    """Measures every contender once a round, each round beginning with another one."""
    for k in range(rounds):
        first = k % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            contender.round()
