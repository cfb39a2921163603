"""A small made-up MovieLens: the same two tables, with other people and other films."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from folders import picture
from rich.console import Console

from umair_jax.data import store
from umair_jax.data.dataset import Dataset
from umair_jax.data.report import Report
from umair_jax.data.sources import open_source
from umair_jax.prepare import prepare

START = 1_000_000_000  # September 2001
GENRES = ("Drama", "Comedy", "Sci-Fi", "Western")
ITEMS = pa.schema(
    [
        ("movie_id", pa.int64()),
        ("title", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("year", pa.int64()),
        ("director", pa.string()),
        ("actors", pa.string()),
        ("plot", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("image", pa.binary()),
    ]
)
RATINGS = pa.schema(
    [
        ("user_id", pa.int64()),
        ("movie_id", pa.int64()),
        ("rating", pa.float64()),
        ("timestamp", pa.int64()),
    ]
)


def film(movie_id: Any, **changes: Any) -> dict[str, Any]:
    """A row of items without a fault."""
    return {
        "movie_id": movie_id,
        "title": f"Film {movie_id} (1990)",
        "genres": ["Drama"],
        "year": 1990,
        "director": "Ada Lens",
        "actors": "Bo Bit, Cy Cut",
        "plot": f"Plot {movie_id}.",
        "tags": ["slow"],
        "image": picture(int(movie_id or 0), size=(4, 6)),
    } | changes


def rating(user_id: Any, movie_id: Any, timestamp: Any, stars: float = 4.0) -> dict[str, Any]:
    """A row of ratings."""
    return {"user_id": user_id, "movie_id": movie_id, "rating": stars, "timestamp": timestamp}


def write(
    folder: Path,
    items: list[dict[str, Any]],
    ratings: list[dict[str, Any]],
    schemas: tuple[pa.Schema, pa.Schema] = (ITEMS, RATINGS),
) -> Path:
    """Both tables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows, schema in zip(("items", "ratings"), (items, ratings), schemas, strict=True):
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}.parquet")
    return folder


def site(films: int = 30, users: int = 8, each: int = 6, seed: int = 0) -> tuple[list, list]:
    """Films with gaps, and ratings of distinct films by each user; many share a second."""
    rng = np.random.default_rng(seed)
    items = []
    for k in range(1, films + 1):
        changes: dict[str, Any] = {"genres": rng.permutation(GENRES)[: rng.integers(0, 4)].tolist()}
        if k % 5 == 0:
            changes |= {"director": "", "actors": "", "plot": "", "tags": []}
        if k % 7 == 0:
            changes |= {"year": None, "title": f"Film {k}"}
        if k % 4 == 0:
            changes |= {"year": 2002, "title": f"Film {k} (2002)"}
        if k % 11 == 0:
            changes["image"] = None
        items.append(film(k, **changes))
    ratings = [
        rating(user, int(movie), START + int(rng.integers(0, 400)) * 100_000)
        for user in range(1, users + 1)
        for movie in rng.permutation(films)[:each] + 1
    ]
    return items, ratings


def prepared(folder: Path | str, place: Path, **options: Any) -> tuple[Dataset, Report]:
    """The data set, and its report."""
    source = open_source("movielens", folder)
    report = prepare(source, place, console=Console(quiet=True), **options)
    return store.load(place), report
