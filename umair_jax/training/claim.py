"""A folder belongs to one run at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are the user's to avoid
    fcntl = None

LOCK_FILE = ".lock"


@contextlib.contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Makes a run's folder and keeps other runs out of it; the system frees it, however we end.

    Raises:
        ValueError: Another run is at work there, or the folder cannot be written to.
    """
    path = Path(workdir) / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ValueError(
            f"{workdir}: cannot be written to ({error.strerror}); choose another --workdir"
        ) from error
    with path.open("r+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ValueError(
                    f"{workdir}: another run is at work there ({file.read().strip()}); wait for "
                    "it, or choose another --workdir"
                ) from None
            except OSError:
                pass  # a file system without locks
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
