"""A folder that appears whole or not at all, and goes on from a stage where it was interrupted."""

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def refuse_others(folder: Path, ours: set[str] | frozenset[str]) -> None:
    """Refuses a place that holds something that is not ours to remove.

    Args:
        folder: The place; it need not exist.
        ours: Names in it that may be removed.

    Raises:
        ValueError: It holds other files, or is one.
    """
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    others = sorted(names - ours)
    if others:
        raise ValueError(
            f"{folder}: got a place with other files ({', '.join(others[:5])}); expected a new or "
            "empty folder, or one that only this command has written to; move them away or choose "
            "another --data_dir"
        )


@contextlib.contextmanager
def writing(folder: Path, request: Any, stage: str) -> Iterator[Path]:
    """Lends a folder to write to, beside the one to make, and renames it at the end.

    A process that dies leaves its folder behind. The next one with the same request is lent that
    one if the file `stage` is in it, and removes what else dead processes have left.

    Args:
        folder: The folder to make or to replace.
        request: What it is made from, as JSON has it.
        stage: Name of a JSON file, {"request": request, ...}, that whoever writes leaves in the
            folder once there is something to go on from, and removes when all is done.

    Raises:
        ValueError: The folder cannot be made. One that is raised inside says that the input
            cannot be used: nothing is kept.
    """
    try:
        partial = _beside(folder, request, stage)
    except OSError as error:
        text = f"{folder}: cannot be made ({error}); choose another --data_dir"
        raise ValueError(text) from error
    keep = False
    try:
        yield partial
        _replace(folder, partial)
    except ValueError:
        raise
    except BaseException:
        keep = (partial / stage).exists()
        raise
    finally:
        if not keep:
            shutil.rmtree(partial, ignore_errors=True)


def _beside(folder: Path, request: Any, stage: str) -> Path:
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    for kind in ("partial", "old"):
        for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.{kind}-*"):
            if _alive(leftover.name.rpartition("-")[2]):
                continue
            if leftover == partial or not partial.exists():
                with contextlib.suppress(OSError, ValueError):
                    if json.loads((leftover / stage).read_text("utf-8"))["request"] == request:
                        leftover.rename(partial)  # of two processes that try, one succeeds
                        continue
            shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    return partial


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return int(process) != os.getpid()


def _replace(folder: Path, partial: Path) -> None:
    if folder.exists():
        old = partial.with_name(partial.name.replace(".partial-", ".old-"))
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
    else:
        partial.rename(folder)
