"""From a source of drawings and bookmarks to one data set on disk.

    python -m umair_jax.prepare --source=openclipart --data_dir=DATA
    python -m umair_jax.prepare --source=folder --path=MINE --data_dir=DATA
    python -m umair_jax.prepare --source=movielens --path=FILMS --data_dir=DATA

Everything wrong with the data is counted and shown; see data/report.py. A data set that is there
already and was made from the same input is left alone.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
from absl import flags
from rich.console import Console
from rich.progress import Progress

from umair_jax import settings
from umair_jax.data import assemble, atomic_folder, records, store
from umair_jax.data.dataset import Interactions, Items, Users
from umair_jax.data.images import PIXEL_LIMIT
from umair_jax.data.log_spool import LogSpool, ahead
from umair_jax.data.negatives import STRATEGIES, sample_negatives
from umair_jax.data.report import Report
from umair_jax.data.sources import NAMES, RawInteractions, Source, open_source
from umair_jax.memory import peak_memory_bytes

T = TypeVar("T")
NEGATIVES = ("auto", "none", *STRATEGIES)
# Of what follows from the same input: data sets of another one are made anew. 2: sampled negatives
# may be bookmarked later. 3: pictures have the size that they are shown in.
_REVISION = 3
SUMMARY = "summary.json"
_ITEMS_AT_ONCE = 16
_ITEMS_DONE = "items.json"  # in the folder beside, once the items are written
_OURS = {records.DESCRIPTION, records.CATALOGUE, records.ROOT, SUMMARY}


def prepare(
    source: Source,
    data_dir: str | os.PathLike[str],
    *,
    pixel_limit: int = PIXEL_LIMIT,
    max_bad_share: float = 0.05,
    negatives: str = "auto",
    negatives_per_positive: int = 4,
    seed: int = 0,
    workers: int = 0,
    console: Console | None = None,
) -> Report:
    """Writes a data set, unless it is there already.

    The folder appears whole or not at all: it is written beside its place and then renamed. Where a
    run was interrupted after its items were written, the same command goes on from there. Memory
    grows with the catalogue and the users, not with the log, unless negatives are sampled.

    Args:
        source: Where the data come from; see data/sources.
        data_dir: The folder to make. A data set made from another input is replaced; anything
            else that lies there is not touched.
        pixel_limit: Pictures with more pixels are left out.
        max_bad_share: Largest tolerated share of bad rows in any one file.
        negatives: What to do about a log without zeros: none, uniform or popularity (sampled);
            auto samples as the source says if there are no zeros at all.
        negatives_per_positive: Sampled negatives per bookmark.
        seed: Seed of the sampling.
        workers: Threads that sort a long log; 0 = one for each core.
        console: Where progress and the summary go; None = standard error.

    Returns:
        What was wrong with the data; of a data set that was there, what was found back then.

    Raises:
        ValueError: The data cannot be used; the message names file, row and remedy.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"got negatives {negatives!r}; expected one of {', '.join(NEGATIVES)}")
    if not 0 <= max_bad_share <= 1:
        raise ValueError(f"got max_bad_share {max_bad_share}; expected 0 to 1")
    if negatives_per_positive < 1:
        raise ValueError(f"got {negatives_per_positive} negatives per positive; expected 1 or more")
    if workers < 0:
        raise ValueError(f"got {workers} workers; expected 0 or more")
    console = console or Console(stderr=True)
    folder = Path(os.path.realpath(data_dir))
    request = {
        "source": source.request(),
        "pixel_limit": pixel_limit,
        "max_bad_share": max_bad_share,
        "negatives": negatives,
        "negatives_per_positive": negatives_per_positive,
        "seed": seed,
        "revision": _REVISION,
    }
    request = json.loads(json.dumps(request))
    there = store.describe(folder)
    if there is None:
        atomic_folder.refuse_others(folder, set())
    elif there["request"] == request:
        _say(console, f"{folder}: prepared already, left as it is.")
        return Report.from_dict(there["report"])
    else:
        changed = [key for key in request if there["request"].get(key) != request[key]]
        _say(console, f"{folder}: made from another {' and '.join(changed)}; making it anew.")
        atomic_folder.refuse_others(folder, _OURS)
    with atomic_folder.writing(folder, request, _ITEMS_DONE) as partial:
        if (partial / _ITEMS_DONE).exists():
            _say(console, f"{folder}: going on from the items of an interrupted run.")
        threads = workers or os.cpu_count() or 1
        report, description = _write(source, partial, request, threads, console)
        _write_json(partial / records.DESCRIPTION, description)
    console.print(report.table())
    _say(console, _sentence(description["summary"]))
    return report


def _write(
    source: Source, folder: Path, request: dict[str, Any], workers: int, console: Console
) -> tuple[Report, dict[str, Any]]:
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=folder) as waiting,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        catalogue, report = _collect(source, folder, request, progress)
        people = assemble.People(source.users())
        pieces = _counted(_read_ahead(source.interactions(report), 1), progress)
        spool = LogSpool(Path(waiting), workers=workers)
        log = assemble.assemble_log(pieces, catalogue.rows, people, report, spool)
        report.check(request["max_bad_share"])
        if not len(log):
            raise ValueError(f"source {source.name}: got no usable interaction; expected some")
        items, users = catalogue.items(), people.users()
        log = _with_negatives(log, items, source.negatives, request, report)
        records.write_users(folder, users)
        records.write_interactions(folder, log)
        summary = _summary(source, items, users, log, catalogue, report)
        fingerprint = assemble.fingerprint(catalogue.fingerprint(), items, users, log)
    summary["seconds"] = round(time.monotonic() - began, 3)
    summary["peak_memory_bytes"] = peak_memory_bytes()
    summary["fingerprint"] = fingerprint
    _write_json(folder / SUMMARY, summary)
    (folder / _ITEMS_DONE).unlink()
    return report, {
        "format": records.VERSION,
        "name": source.name,
        "simulated": source.simulated,
        "fingerprint": fingerprint,
        "catalogue_fingerprint": catalogue.fingerprint(),
        "request": request,
        "summary": summary,
        "report": report.to_dict(),
    }


def _collect(
    source: Source, folder: Path, request: dict[str, Any], progress: Progress
) -> tuple[assemble.Catalogue, Report]:
    """The items, written and checked; those of an interrupted run as they are."""
    done = folder / _ITEMS_DONE
    if done.exists():
        stored = json.loads(done.read_text("utf-8"))
        for table in ("users", "interactions"):
            shutil.rmtree(folder / records.ROOT / table, ignore_errors=True)
        report = Report.from_dict(stored["report"])
        table = pq.read_table(folder / records.CATALOGUE)
        return assemble.Catalogue.restored(table, stored["fingerprint"], report), report
    report = Report()
    catalogue = assemble.Catalogue(report, request["pixel_limit"])
    bar = progress.add_task("items", total=None)
    raw = progress.track(_read_ahead(source.items(report), _ITEMS_AT_ONCE), task_id=bar)
    made = catalogue.collect(raw)
    # TFDS does not write empty tables.
    first = list(itertools.islice(made, 1))
    if first:
        records.write_items(folder, itertools.chain(first, made))
    report.check(request["max_bad_share"])
    if not first:
        raise ValueError(f"source {source.name}: got no usable item; expected at least one")
    pq.write_table(catalogue.table(), folder / records.CATALOGUE)
    stage = {"fingerprint": catalogue.fingerprint(), "report": report.to_dict()}
    _write_json(done.with_suffix(".new"), {"request": request, **stage})
    done.with_suffix(".new").replace(done)
    return catalogue, report


def _read_ahead(things: Iterator[T], at_once: int) -> Iterator[T]:
    """The same things in order, of which a thread of its own reads the next ones meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        taken = ahead(
            reader, lambda _: list(itertools.islice(things, at_once)), itertools.count(), 2
        )
        for some in taken:
            if not some:
                break
            yield from some


def _counted(pieces: Iterable[RawInteractions], progress: Progress) -> Iterator[RawInteractions]:
    """The pieces, while a bar shows how many interactions they had."""
    bar = progress.add_task("interactions", total=None)
    for piece in pieces:
        yield piece
        progress.advance(bar, len(piece.row))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _say(console: Console, text: str) -> None:
    # Names of files may hold brackets, and one line is one line.
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _with_negatives(
    log: Interactions, items: Items, usual: str, request: dict[str, Any], report: Report
) -> Interactions:
    strategy = request["negatives"]
    if strategy == "auto":
        strategy = "none" if (log.label == 0).any() else usual
    if strategy == "none":
        return log
    per_positive = request["negatives_per_positive"]
    full = sample_negatives(log, items, strategy, per_positive, request["seed"])
    missing = per_positive * int((log.label == 1).sum()) - (len(full) - len(log))
    report.add_many("no_negative_left", "log", np.arange(missing), "illust_id", [strategy])
    if full.label.all():
        raise ValueError(
            f"the log: got {len(log):,} bookmarks and no item that could be sampled as a negative "
            "for any of them; expected items that somebody had not bookmarked when they were "
            "published; correct published, or add rows with label 0"
        )
    return full


def _summary(
    source: Source,
    items: Items,
    users: Users,
    log: Interactions,
    catalogue: assemble.Catalogue,
    report: Report,
) -> dict[str, Any]:
    positives = int((log.label == 1).sum())
    day = [datetime.fromtimestamp(int(t), UTC).isoformat() for t in log.timestamp[[0, -1]]]
    return {
        "task": "prepare",
        "source": source.name,
        "simulated": source.simulated,
        "items": len(items),
        "images": sum(catalogue.has_image),
        "artists": len(set(items.artist[1:]) - {""}),
        "tags": len({tag for tags in items.tags for tag in tags}),
        "users": len(users),
        "interactions": len(log),
        "positives": positives,
        "positive_share": positives / len(log),
        "sampled_negatives": 0 if log.sampled is None else int(log.sampled.sum()),
        "first": day[0],
        "last": day[1],
        "problems": report.counts,
        "bad_share": report.bad_shares(),
    }


def _sentence(summary: dict[str, Any]) -> str:
    simulated = " (simulated)" if summary["simulated"] else ""
    return (
        f"{summary['source']}: {summary['items']:,} items ({summary['images']:,} with a picture), "
        f"{summary['users']:,} users, {summary['interactions']:,} interactions{simulated}, "
        f"{summary['positive_share']:.1%} bookmarks, {summary['first']} to {summary['last']}, "
        f"{summary['seconds']:.1f} s."
    )


def main(argv: list[str]) -> None:
    """Prepares what the flags say."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}, expected flags only.")
    values = flags.FLAGS
    if not values.data_dir:
        raise ValueError("--data_dir: got nothing, expected the folder to write.")
    prepare(
        open_source(values.source, values.path, values.seed, untimed_tags=values.untimed_tags),
        values.data_dir,
        pixel_limit=values.pixel_limit,
        max_bad_share=values.max_bad_share,
        negatives=values.negatives,
        negatives_per_positive=values.negatives_per_positive,
        seed=values.seed,
        workers=values.workers,
        console=Console(),
    )


if __name__ == "__main__":
    # Here, not at import: other front doors call `prepare` and have flags of the same names.
    flags.DEFINE_enum("source", "openclipart", list(NAMES), "Where the data come from.")
    flags.DEFINE_string("path", None, "The folder to read, for folder and movielens.")
    flags.DEFINE_bool("untimed_tags", False, "Read the users' words of movielens.")
    flags.DEFINE_string("data_dir", None, "The folder to write.")
    flags.DEFINE_integer("seed", 0, "Seed of the simulation and of sampled negatives.")
    flags.DEFINE_integer("pixel_limit", PIXEL_LIMIT, "Largest width x height.")
    flags.DEFINE_float("max_bad_share", 0.05, "Largest share of bad rows in a file.")
    flags.DEFINE_enum("negatives", "auto", list(NEGATIVES), "Sampled negatives.")
    flags.DEFINE_integer("negatives_per_positive", 4, "Sampled per bookmark.")
    flags.DEFINE_integer("workers", 0, "Threads that sort a long log; 0 = one a core.")
    settings.run_front_door(main)
