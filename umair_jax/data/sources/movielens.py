"""MovieLens: films, and real people's ratings of them.

    items.parquet       movie_id, title, genres, year, director, actors, plot, tags, image
    ratings.parquet     user_id, movie_id, rating, timestamp

docs/data.md lists the columns and says how to make both tables from the files of GroupLens, whose
licence does not let them come with the package. Whoever rated a film has watched it: every rating
is a bookmark, whatever its stars.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from umair_jax.data.report import Report
from umair_jax.data.sources import RawInteractions, RawItem, RawUser, cells, checks, tables

# The first films that the catalogue of MovieLens knows are photographs in sequence, of 1874.
FIRST_YEAR, LAST_YEAR = 1874, 2099
NO_GENRES = "(no genres listed)"
_TEXTS = ("title", "director", "actors", "plot")
_ITEMS = tables.Wanted(
    required=("movie_id", "title"),
    optional=("genres", "year", "director", "actors", "plot", "tags", "image"),
    lists=("genres", "tags"),
    multiline=(*_TEXTS, "genres", "tags"),
)
# The stars are no input and no label: listed, so that nobody is told of an unknown column.
_RATINGS = tables.Wanted(required=("user_id", "movie_id", "timestamp"), optional=("rating",))
_ARTICLE = re.compile(r"^(.+?), (The|An?|L[ae]|Les|El|Il|De[rn]|Die|Das)(?= \(|$)")


class MovieLens:
    """Reads a folder with films and ratings.

    Args:
        path: The folder.
        untimed_tags: Add the words that users gave to a film, after its genres. Nobody knows when
            they were given: some are from after the events that a ranker is to predict.

    Raises:
        ValueError: It is no folder, or lacks one of the two tables.
    """

    name = "movielens"
    simulated = False
    negatives = "popularity"

    def __init__(self, path: str | os.PathLike[str], untimed_tags: bool = False):
        self.path = Path(path)
        self.untimed_tags = untimed_tags
        if not self.path.is_dir():
            got = "a file" if self.path.exists() else "nothing"
            raise ValueError(
                f"{self.path}: got {got}; expected a folder with items and ratings; mend --path"
            )
        self._items = tables.find(self.path, "items")
        self._log = tables.find(self.path, "ratings")

    def request(self) -> dict[str, Any]:
        """The contents of both tables, and whether users' words are read."""
        return {
            "name": self.name,
            "tables": {path.name: checks.digest(path) for path in (self._items, self._log)},
            "untimed_tags": self.untimed_tags,
        }

    def items(self, report: Report) -> Iterator[RawItem]:
        """All films with a readable id, published on 1 January of their year.

        A film that was rated before counts as published at its first rating. Whoever looks from
        an earlier second still finds it unpublished: nothing later shows.
        """
        first = self._first_ratings()
        for piece in tables.read(self._items, _ITEMS, report):
            films = _Films(self._items.name, piece, report)
            yield from films.items(first, self.untimed_tags)

    def users(self) -> Iterator[RawUser]:
        """None: the log's own are all."""
        yield from ()

    def interactions(self, report: Report) -> Iterator[RawInteractions]:
        """The ratings in pieces, each with label 1."""
        file = self._log.name
        for piece in tables.read(self._log, _RATINGS, report):
            events = checks.events(file, piece, "movie_id", report)
            label = np.ones(len(piece.row), np.int8)
            yield events.labelled(file, piece.row, label, events.usable)

    def _first_ratings(self) -> dict[str, int]:
        """Unix seconds of the first rating by film."""
        first: dict[str, int] = {}
        for piece in self.interactions(Report()):  # problems are counted when the log is read
            codes = piece.illust_id.indices.to_numpy()
            names = piece.illust_id.dictionary.to_pylist()
            earliest = np.full(len(names), cells.LAST_SECOND, np.int64)
            np.minimum.at(earliest, codes, piece.timestamp)
            for movie, second in zip(names, earliest.tolist(), strict=True):
                first[movie] = min(second, first.get(movie, second))
        return first


class _Films:
    """The checked columns of some films."""

    def __init__(self, file: str, piece: tables.Piece, report: Report):
        self.file, self.row, self.report = file, piece.row, report
        self.ids, self.usable = checks.ids(file, piece, "movie_id", report)
        there, rows = piece.columns, len(piece.row)
        self.texts: dict[str, list[str]] = {}
        for name in _TEXTS:
            self.texts[name] = [""] * rows
            if name in there:
                column, wrong = cells.texts(there[name])
                # A dropped row is counted once, for its id.
                self._problem("bad_utf8", wrong & self.usable, name, column)
                self.texts[name] = column.to_pylist()
        self.lists: dict[str, list[tuple[str, ...]]] = {}
        for name in ("genres", "tags"):
            self.lists[name] = [()] * rows
            if name in there:
                self.lists[name], wrong = cells.tags(there[name])
                self._problem("bad_utf8", wrong & self.usable, name, self.lists[name])
        self.years = np.full(rows, -1, np.int64)
        if "year" in there:
            shown, _ = cells.texts(there["year"])
            years, wrong, negative = cells.numbers(shown)
            known = years >= 0
            wrong |= negative | (known & ((years < FIRST_YEAR) | (years > LAST_YEAR)))
            self._problem("bad_year", wrong & self.usable, "year", shown)
            self.years = np.where(wrong, -1, years)
        self.images = there["image"].to_pylist() if "image" in there else [None] * rows

    def _problem(self, kind: str, where: np.ndarray, field: str, shown: Any) -> None:
        checks.count(kind, self.file, self.row, where, field, shown, self.report)

    def items(self, first: dict[str, int], untimed_tags: bool) -> Iterator[RawItem]:
        """The films; `first` holds the second of the first rating by id."""
        ids, years = self.ids.to_pylist(), self.years.tolist()
        for k in np.flatnonzero(self.usable).tolist():
            movie, year, row = ids[k], years[k], int(self.row[k])
            genres = tuple(genre for genre in self.lists["genres"][k] if genre != NO_GENRES)
            published = _new_year(year)
            # A row without an id is counted, and left out, by whoever reads this.
            if movie and published > first.get(movie, published):
                self.report.add("rated_before", self.file, row, "year", f"{year} ({movie})")
                published = first[movie]
            if movie and not self.images[k]:
                self.report.add("no_image", self.file, row, "image", movie)
            yield RawItem(
                file=self.file,
                row=row,
                illust_id=movie,
                image=self.images[k] or None,
                title=_title(self.texts["title"][k], year),
                artist=self.texts["director"][k],
                description=_description(self.texts["plot"][k], self.texts["actors"][k]),
                category="" if year < 0 else f"{year // 10 * 10}s",
                tags=genres + (_others(self.lists["tags"][k], genres) if untimed_tags else ()),
                published=published,
            )


def _new_year(year: int) -> int:
    """1 January of a year as unix seconds, below zero before 1970; -1 = unknown."""
    return -1 if year < 0 else int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


def _title(title: str, year: int) -> str:
    """Without the year, which is elsewhere, and with the article in front.

    >>> _title("Misérables, Les (1995)", 1995)
    'Les Misérables'
    """
    return _ARTICLE.sub(r"\2 \1", title.removesuffix(f"({year})").rstrip() or title)


def _description(plot: str, actors: str) -> str:
    """The plot, then the cast: a text encoder cuts off what is too long for it."""
    return f"{plot} With {actors}.".lstrip() if actors else plot


def _others(tags: tuple[str, ...], genres: tuple[str, ...]) -> tuple[str, ...]:
    """The tags that are no genre written in other letters."""
    known = {genre.casefold() for genre in genres}
    return tuple(tag for tag in tags if tag.casefold() not in known)
