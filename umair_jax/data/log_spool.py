"""A log of any length in order: what does not fit into memory waits in files, sorted in parts.

Records are packed side by side, in order of arrival. Once there are more than `rows_at_once`, they
go to a file; at the end that file is divided by time into others of about so many rows, each is
sorted and freed of repetitions in memory, and the columns are written one after the other. Rows of
one second stay together, so that the parts in a row are what the whole would have been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from umair_jax.data.dataset import Interactions
from umair_jax.data.report import Report

T = TypeVar("T")
R = TypeVar("R")
ROWS_AT_ONCE = 2_000_000  # some 0.25 GiB while they are sorted
_MOST_PARTS = 512  # files open at a time
_SAMPLED = 64  # of so many rows one tells where the times are
_TYPES = {
    "user": np.int32,
    "item": np.int32,
    "timestamp": np.int64,
    "label": np.int8,
    "true_probability": np.float32,
}
_PLACE = ("place", np.int64)


class LogSpool:
    """Collects a log and puts it in order."""

    def __init__(
        self, folder: Path | None = None, rows_at_once: int = ROWS_AT_ONCE, workers: int = 1
    ) -> None:
        """Nothing is written yet.

        Args:
            folder: An empty folder for what does not fit; it must outlive the ordered log. None
                keeps everything in memory.
            rows_at_once: Rows to hold in memory, about; each worker holds as many.
            workers: Threads that sort.
        """
        self._folder, self._rows_at_once, self._workers = folder, rows_at_once, workers
        self._names: tuple[str, ...] = ("user", "item", "timestamp", "label")
        self._parts: list[np.ndarray] = []
        self._times: list[np.ndarray] = []
        self._held = self._spooled = 0

    def add(self, log: Interactions, place: np.ndarray) -> None:
        """Takes some of the log, in any order.

        Args:
            log: Its columns.
            place: int64 [R], rows in the file that they come from.
        """
        if log.true_probability is not None and not self._parts and not self._spooled:
            self._names += ("true_probability",)
        records = np.empty(len(log), [*((n, _TYPES[n]) for n in self._names), _PLACE])
        for name in self._names:
            records[name] = getattr(log, name)
        records["place"] = place
        self._parts.append(records)
        self._held += len(records)
        if self._folder is not None and self._held > self._rows_at_once:
            self._spill(self._folder)

    def _spill(self, folder: Path) -> None:
        with (folder / "spool").open("ab") as file:
            for part in self._parts:
                part.tofile(file)
                self._times.append(part["timestamp"][::_SAMPLED].copy())
        self._spooled += self._held
        self._parts, self._held = self._parts[:0], 0

    def ordered(self, file: str, report: Report) -> Interactions:
        """All of it by (timestamp, user, item), each once; a bookmark wins over its contradiction.

        Args:
            file: Name of the file that it comes from, for the report.
            report: Where repetitions and contradictions are counted.

        Returns:
            The log; its columns are memory-mapped where it did not fit.
        """
        if not self._spooled or self._folder is None:
            kind = [*((n, _TYPES[n]) for n in self._names), _PLACE]
            records = np.concatenate([np.empty(0, kind), *self._parts])
            self._parts = []
            kept = _without_repetitions(_sorted(records), file, report)
            return Interactions(**{n: np.ascontiguousarray(kept[n]) for n in self._names})
        self._spill(self._folder)
        with ThreadPoolExecutor(self._workers) as pool:
            for part in ahead(pool, _sorted, self._by_time(self._folder), self._workers):
                kept = _without_repetitions(part, file, report)
                for name in self._names:
                    with (self._folder / name).open("ab") as column:
                        np.ascontiguousarray(kept[name]).tofile(column)
        return Interactions(
            **{name: np.memmap(self._folder / name, _TYPES[name], mode="r") for name in self._names}
        )

    def _by_time(self, folder: Path) -> Iterator[np.ndarray]:
        """The spooled records in parts of increasing time."""
        kind = np.dtype([*((n, _TYPES[n]) for n in self._names), _PLACE])
        parts = min(-(-self._spooled // self._rows_at_once), _MOST_PARTS)
        times = np.sort(np.concatenate(self._times))
        bounds = np.unique(times[np.linspace(0, len(times), parts + 1).astype(int)[1:-1]])
        paths = [folder / f"part-{k}" for k in range(len(bounds) + 1)]
        files = [path.open("wb") for path in paths]
        with (folder / "spool").open("rb") as spool:
            while len(some := np.fromfile(spool, kind, self._rows_at_once)):
                where = np.searchsorted(bounds, some["timestamp"], side="right")
                for k in np.unique(where):
                    some[where == k].tofile(files[k])
        for file in files:
            file.close()
        (folder / "spool").unlink()
        for path in paths:
            yield np.fromfile(path, kind)
            path.unlink()


def ahead(pool: Executor, work: Callable[[T], R], things: Iterable[T], number: int) -> Iterator[R]:
    """The results of `work` in the order of the things, at most so many of them begun ahead."""
    waiting: deque[Future[R]] = deque()
    for thing in things:
        waiting.append(pool.submit(work, thing))
        if len(waiting) > number:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _sorted(records: np.ndarray) -> np.ndarray:
    """By (timestamp, user, item), bookmarks first; equal ones in order of arrival."""
    if not len(records):
        return records
    time, user = records["timestamp"], records["user"].astype(np.int64)
    kind = records["item"].astype(np.int64) * 2 + (1 - records["label"])
    users = int(user.max()) + 1
    if (int(time.max()) - int(time.min())) * users < np.iinfo(np.int64).max // 2:
        return records[np.lexsort((kind, (time - time.min()) * users + user))]
    return records[np.lexsort((kind, user, time))]


def _without_repetitions(records: np.ndarray, file: str, report: Report) -> np.ndarray:
    """Of sorted records each (user, item, second) once."""
    same = np.zeros(len(records), bool)
    same[1:] = True
    for name in ("timestamp", "user", "item"):
        same[1:] &= records[name][1:] == records[name][:-1]
    label, begins = records["label"], np.flatnonzero(~same)
    leader = begins[np.cumsum(~same) - 1] if len(records) else begins
    contradicts = same & (label != label[leader])
    # Of several equal zeros beside a one, the first contradicts and the others repeat it.
    contradicts[1:] &= label[1:] != label[:-1]
    for kind, rows in (
        ("duplicate_interaction", np.flatnonzero(same & ~contradicts)),
        ("contradiction", np.flatnonzero(contradicts)),
    ):
        some = records[rows[:8]]
        values = [f"user row {r['user']}, item row {r['item']}" for r in some]
        report.add_many(kind, file, records["place"][rows], "user_id, illust_id, timestamp", values)
    return records[begins]
