"""The memory of the process: what XLA has freed, and the most that was in use."""

import contextlib
import ctypes
import sys
from pathlib import Path

# mallopt's parameters, see man 3 mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_GIB = 1 << 30


def keep_freed_memory() -> bool:
    """Makes glibc keep what is freed for the next allocation; call it before JAX starts.

    On CPUs XLA allocates the intermediate results of a step anew each time and frees them after
    it. Beyond a few MB glibc fetches them from the operating system and gives them back at once,
    so that every step has all their pages cleared and mapped again. Here only blocks of 1 GiB and
    more (stored vectors of a catalogue) are treated so; what is smaller stays with the process.

    All threads share one heap then, since those of threads other than the first hold 64 MB at
    most, and they wait for one another. What it is worth depends on the size of the batch:
    `benchmarks/ranker.py --umcm senet` trains 1.39 times as many examples a second at batch 4,096
    as with `--allocator default`, 0.85 times as many at 1,024 and 0.71 at 128 (medians of three
    runs each, in turn, on two cores). Extraction and evaluation have large batches.

    Returns:
        Whether it took effect; False where the C library is not glibc (macOS, Alpine).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _GIB), (_TRIM_THRESHOLD, 2 * _GIB - 1))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def peak_memory_bytes() -> int | None:
    """The most memory that the process had in use so far; None where nobody counts (Windows)."""
    # Linux's ru_maxrss knows the process that started this one as well.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None
