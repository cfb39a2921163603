"""Where data come from. A source yields raw items, users and interactions; see `Source`.

| name | what | interactions |
|---|---|---|
| openclipart | 2,743 drawings that come with the package | simulated |
| folder | your own: items and interactions (parquet, csv or jsonl), images/ | real |
| movielens | films and ratings of MovieLens, from a folder: items, ratings | real |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from umair_jax.data.report import Report

NAMES = ("openclipart", "folder", "movielens")


@dataclasses.dataclass(frozen=True)
class RawItem:
    """One item as a source gives it; numbers are -1 where missing, texts empty.

    Attributes:
        file: Name of the file that it comes from, for reports.
        row: Its row there.
        illust_id: Id, as text.
        image: Encoded picture, or None.
        title: Likewise the other fields of the catalogue.
    """

    file: str
    row: int
    illust_id: str
    image: bytes | None = None
    title: str = ""
    artist: str = ""
    description: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    width: int = -1
    height: int = -1
    total_view: int = -1
    total_bookmarks: int = -1
    sanity_level: int = -1
    restrict: int = -1
    x_restrict: int = -1
    published: int = -1


@dataclasses.dataclass(frozen=True)
class RawUser:
    """One user as a source gives it."""

    user_id: str
    username: str = ""
    true_mixture: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class RawInteractions:
    """Some rows of the log as columns of equal length.

    Attributes:
        file: Name of the file that they come from, for reports.
        row: Their rows there.
        user_id: Text, also dictionary-encoded.
        illust_id: Text, also dictionary-encoded.
        timestamp: Unix seconds.
        label: 0 or 1.
        username: Text, or None.
        true_probability: Where simulated.
    """

    file: str
    row: np.ndarray
    user_id: pa.Array
    illust_id: pa.Array
    timestamp: np.ndarray
    label: np.ndarray
    username: pa.Array | None = None
    true_probability: np.ndarray | None = None


@runtime_checkable
class Source(Protocol):
    """What `prepare` needs of a source.

    Attributes:
        name: Short name, part of results.
        simulated: Whether the interactions are made up.
        negatives: How negatives are sampled for a log of bookmarks only, where nobody says
            otherwise: one of negatives.STRATEGIES.
    """

    name: str
    simulated: bool
    negatives: str

    def request(self) -> dict[str, Any]:
        """JSON-able identity of the input: it changes whenever the result may change."""
        ...

    def items(self, report: Report) -> Iterator[RawItem]:
        """All items, in order; problems are counted."""
        ...

    def users(self) -> Iterator[RawUser]:
        """Users that are known beside the log; the log's own are added."""
        ...

    def interactions(self, report: Report) -> Iterator[RawInteractions]:
        """The log in pieces; rows that cannot be read are counted and left out."""
        ...


def open_source(
    name: str,
    path: str | Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    untimed_tags: bool = False,
) -> Source:
    """Opens a source by name.

    Args:
        name: openclipart, folder or movielens.
        path: The folder; openclipart needs none.
        seed: Seed of the simulated log; the others need none.
        limit: Use only the first so many drawings of openclipart; None = all.
        untimed_tags: Read the users' words of movielens, whose time nobody knows.

    Raises:
        ValueError: An unknown name, or a missing or unwanted path, limit or untimed_tags.
    """
    if name not in NAMES:
        raise ValueError(f"got the source {name!r}; expected one of {', '.join(NAMES)}")
    if untimed_tags and name != "movielens":
        raise ValueError(
            f"got untimed_tags for the source {name}; expected movielens, the only one with tags "
            "of users; leave it"
        )
    if name == "openclipart":
        from umair_jax.data.sources.openclipart import OpenClipart

        if path:
            raise ValueError(f"got the path {path}; the source openclipart needs none; leave it")
        return OpenClipart(seed, limit=limit)
    if limit is not None:
        raise ValueError(f"got the limit {limit}; the source {name} is read whole; leave it")
    if not path:
        log = "ratings" if name == "movielens" else "interactions"
        raise ValueError(f"got no path; expected the folder with items and {log}: --path")
    if name == "movielens":
        from umair_jax.data.sources.movielens import MovieLens

        return MovieLens(path, untimed_tags)
    from umair_jax.data.sources.folder import Folder

    return Folder(path)
