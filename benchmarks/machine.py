"""What a figure depends on besides the code: the machine, the versions, and who else uses it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")
_STAT = Path("/proc/stat")


def describe() -> dict[str, Any]:
    """Date, processor, cores and versions, for the record of a result."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Usage:
    """Wall and CPU time of a piece of work, over any number of rounds.

    Attributes:
        seconds: Wall time of each round.
        cpu_seconds: CPU time of this process in all rounds.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds = 0.0
        self._busy = 0.0

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """Measures what happens inside."""
        busy, cpu, began = _busy_seconds(), time.process_time(), time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds += time.process_time() - cpu
        self._busy += _busy_seconds() - busy

    @property
    def foreign_share(self) -> float | None:
        """Share of all cores that other processes used meanwhile; None where it is not known."""
        if not _STAT.exists():
            return None
        there = sum(self.seconds) * (os.cpu_count() or 1)
        # /proc/stat counts in hundredths of a second: a short round can seem below 0 or above 1.
        share = (self._busy - self.cpu_seconds) / there if there else 0.0
        return round(min(max(share, 0.0), 1.0), 3)


def _busy_seconds() -> float:
    """Seconds that all cores together have been busy since the start of the machine."""
    if not _STAT.exists():
        return 0.0
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(part) for part in _STAT.read_text().split("\n")[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class MatrixPeak:
    """The rate of one large float32 product: what the machine can give to a network."""

    def __init__(self, size: int) -> None:
        """Compiles the product of two matrices [size, size]."""
        self._flops = 2.0 * size**3
        self._matrix = jnp.ones((size, size), jnp.float32)
        self._product = jax.jit(jnp.matmul)
        self._product(self._matrix, self._matrix).block_until_ready()
        self._rates: list[float] = []

    def measure(self) -> None:
        """Takes one more measurement."""
        began = time.perf_counter()
        self._product(self._matrix, self._matrix).block_until_ready()
        self._rates.append(self._flops / (time.perf_counter() - began) / 1e9)

    @property
    def gflops(self) -> float:
        """Median of the measurements, GFLOP/s."""
        return float(np.median(self._rates))


def free_bytes() -> float:
    """Memory that nobody needs; endless where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def progress(text: str) -> None:
    """Says what goes on, on standard error: standard output holds the results."""
    print(text, file=sys.stderr, flush=True)
