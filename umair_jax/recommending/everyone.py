"""Lists for every user of the log, to Parquet, a part at a time; what is there is kept."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from umair_jax import results
from umair_jax.encoding.progress import EncodingProgress
from umair_jax.recommending import person
from umair_jax.recommending.recommender import Recommendations, Recommender, Request

MANIFEST = "manifest.json"
# Pairs of users and drawings in memory at a time.
_PAIRS = 500_000


def write(
    recommender: Recommender,
    request: Request,
    folder: str | Path,
    key: Mapping[str, Any],
    console: Console,
) -> dict[str, Any]:
    """Recommends to everybody.

    Args:
        recommender: Of a run.
        request: The same for all.
        folder: Gets part-00000.parquet and so on, then manifest.json. Parts that are there are
            kept.
        key: What else decides the lists, such as the run and its checkpoint.
        console: Where progress goes.

    Returns:
        The manifest: "users", "rows", "parts", "seconds", "users_per_second" of what was made now,
        "short": users with fewer drawings than asked for.

    Raises:
        ValueError: The folder holds lists of another run or request.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = {**key, "request": dataclasses.asdict(request), "moment": recommender.moment}
    _claim(folder, json.loads(json.dumps(asked)))
    users, items = len(recommender.dataset.users), len(recommender.dataset.items)
    size = max(1, _PAIRS // max(1, items))
    parts = [range(start, min(start + size, users + 1)) for start in range(1, users + 1, size)]
    schema = _schema(recommender.modalities)
    todo = [(k, part) for k, part in enumerate(parts) if not _part(folder, k).exists()]
    made, began = sum(len(part) for _, part in todo), time.monotonic()
    everybody = person.Everybody(recommender.dataset, recommender.moment)
    with EncodingProgress(made, console, what="Recommending", unit="users") as progress:
        for number, rows in todo:
            found = recommender.recommend_all([everybody[row] for row in rows], request)
            table = pa.Table.from_pylist(_records(found, recommender), schema)
            partial = _part(folder, number).with_suffix(".tmp")
            pq.write_table(table, partial)
            os.replace(partial, _part(folder, number))
            progress.advance(len(rows))
    seconds = time.monotonic() - began
    counts = _counted(folder, len(parts), request.choice.k, users)
    manifest = {
        **asked,
        "users": users,
        "parts": len(parts),
        **counts,
        "seconds": seconds,
        "users_per_second": made / seconds if made else None,
    }
    results.write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


def _claim(folder: Path, asked: dict[str, Any]) -> None:
    record = folder / "request.json"
    if record.exists():
        there = json.loads(record.read_text("utf-8"))
        if there != asked:
            changed = sorted(k for k in {*there, *asked} if there.get(k) != asked.get(k))
            raise ValueError(
                f"{folder}: got lists of another request ({', '.join(changed)} differ); expected "
                "an empty folder or one of this request; name another --out"
            )
    results.write_text(record, json.dumps(asked, indent=2) + "\n")


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _schema(modalities: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("rank", pa.int32()),
            ("illust_id", pa.string()),
            ("probability", pa.float32()),
            *((f"weight_{name}", pa.float32()) for name in modalities),
            ("because", pa.string()),
            ("because_by", pa.string()),
        ]
    )


def _records(found: Sequence[Recommendations], recommender: Recommender) -> list[dict[str, Any]]:
    ids = recommender.dataset.items.illust_id
    names = [f"weight_{name}" for name in recommender.modalities]
    return [
        {
            "user_id": one.person.name,
            "rank": rank,
            "illust_id": ids[pick.item],
            "probability": pick.probability,
            **dict(zip(names, pick.weights, strict=True)),
            "because": ids[pick.because.liked] if pick.because else None,
            "because_by": pick.because.by if pick.because else None,
        }
        for one in found
        for rank, pick in enumerate(one.picks, 1)
    ]


def _counted(folder: Path, parts: int, k: int, users: int) -> dict[str, int]:
    """Rows in all, and users whose list is shorter than asked for."""
    rows, full = 0, 0
    for number in range(parts):
        rank = pq.read_table(_part(folder, number), columns=["rank"])["rank"].to_numpy()
        rows, full = rows + len(rank), full + int((rank == k).sum())
    return {"rows": rows, "short": users - full}
