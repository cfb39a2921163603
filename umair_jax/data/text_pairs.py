"""Pairs of texts that mean the same, belong together, or explain one another.

They come from the built-in corpus, from a file of one's own, and from the catalogue; what cannot be
used is counted in a report.
"""

from __future__ import annotations

import dataclasses
import itertools
import operator
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from umair_jax.data.dataset import Items
from umair_jax.data.report import Report
from umair_jax.data.sources import cells, tables

BUILTIN = "builtin"
PERSPECTIVES = ("multilingual", "relation", "explanation")
CATALOGUE = ("title_tags", "tag_tags", "artist_tags")
_FILE = Path(__file__).parent / "builtin" / "text_pairs.parquet"
_COLUMNS = tables.Wanted(
    required=("perspective", "text_a", "text_b"),
    optional=("lang_a", "lang_b", "source", "negative"),
)
_UNKNOWN_LANGUAGE = "und"
_LANGUAGES = {"zh-Hans": "zh"}
# Namespaces and titles of pages that a wiki keeps for itself, in the languages of the corpus.
_HOUSEKEEPING = re.compile(
    r"(?:^(?:category|template|wikipedia|portal|help|file|module|draft|special|user|talk|mediawiki"
    r"|kategorie|vorlage|catégorie|modèle|plantilla|categoría|分类|分類|模板|カテゴリ|テンプレート)"
    r"\s*[:：]\S)|(?:^lists? of )|disambiguation\)$|消歧义|消歧義|曖昧さ回避",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """Which pairs are used, and which are held out.

    Attributes:
        path: "builtin", a .parquet, .csv or .jsonl file with the columns perspective, text_a and
            text_b (and lang_a, lang_b, source, negative), or "" for the catalogue's alone.
        catalogue: Pairs made from the data set: "title_tags" (explanation), "tag_tags" of one
            drawing and "artist_tags" (relation).
        catalogue_pairs: At most so many pairs of each of these kinds.
        max_characters: Pairs with a longer text are left out.
        max_bad_share: Largest accepted share of rows of the file that are bad.
        fractions: Shares of the concepts that train, validate and test; they add up to 1.
        max_mentions: Concepts with more pairs than this always train: holding out a word like
            "animal" would take thousands of pairs with it.
        split_seed: Which concepts are held out.
        mix: Perspective -> how often its training pairs are seen in one epoch.
    """

    path: str = BUILTIN
    catalogue: tuple[str, ...] = CATALOGUE
    catalogue_pairs: int = 10_000
    max_characters: int = 300
    max_bad_share: float = 0.05
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)
    max_mentions: int = 20
    split_seed: int = 0
    mix: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(PERSPECTIVES, 1.0)
    )

    def __post_init__(self):
        unknown = sorted(set(self.catalogue) - set(CATALOGUE))
        if unknown or not (self.path or self.catalogue):
            raise ValueError(
                f"catalogue: got {self.catalogue} with path {self.path!r}, expected some of "
                f"{CATALOGUE}; none only with a path"
            )
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(
                f"fractions: got {self.fractions}, expected three positive ones that add up to 1"
            )
        if set(self.mix) != set(PERSPECTIVES) or min(self.mix.values()) < 0:
            raise ValueError(
                f"mix: got {self.mix}, expected a number of 0 or more for each of {PERSPECTIVES}"
            )
        if not any(self.mix.values()):
            raise ValueError(f"mix: got {self.mix}, expected one above 0")
        for name in ("catalogue_pairs", "max_characters", "max_mentions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share: got {self.max_bad_share}, expected 0 to 1")


class Pair(NamedTuple):
    """Two texts; a text that is close to `a` and yet wrong may come with them."""

    perspective: str
    a: str
    lang_a: str
    b: str
    lang_b: str
    negative: str = ""
    of_catalogue: bool = False


def key(text: str) -> str:
    """What makes two texts one: case, width of letters and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def read(items: Items | None, config: PairsConfig, report: Report) -> Iterator[Pair]:
    """All usable pairs: those of the file, then those of the catalogue.

    Args:
        items: The catalogue; None = none, then `config.catalogue` is ignored.
        config: See PairsConfig.
        report: Where the rest is counted. Too large a share of bad rows shows in it at the end.

    Raises:
        ValueError: A file that is no table of pairs.
    """
    seen: set[tuple[str, str, str]] = set()
    if config.path:
        path = _FILE if config.path == BUILTIN else Path(config.path)
        yield from _usable(_of_file(path, report), path.name, config, seen, report)
    if items is not None:
        made = list(enumerate(_of_catalogue(items, config), 1))
        report.read("catalogue", len(made))
        yield from _usable(made, "catalogue", config, seen, report)


def _of_file(path: Path, report: Report) -> Iterator[tuple[int, Pair]]:
    if path.suffix not in tables.SUFFIXES or not path.is_file():
        got = f"the suffix {path.suffix!r}" if path.is_file() else "no file"
        raise ValueError(f"{path}: got {got}; expected a file that ends in {tables.SUFFIXES}")
    for piece in tables.read(path, _COLUMNS, report):
        columns = {}
        for name, column in piece.columns.items():
            shown, wrong = cells.texts(column)
            columns[name] = shown.to_pylist()
            rows = np.flatnonzero(wrong)
            values = [columns[name][row] for row in rows]
            report.add_many("bad_utf8", path.name, piece.row[rows], name, values)
        fill = [""] * len(piece.row)
        columns = {name: columns.get(name, fill) for name in _COLUMNS.names}
        for row, perspective, a, b, lang_a, lang_b, negative in zip(
            piece.row.tolist(),
            *(columns[name] for name in ("perspective", "text_a", "text_b")),
            *(columns[name] for name in ("lang_a", "lang_b", "negative")),
            strict=True,
        ):
            if perspective not in PERSPECTIVES:
                report.add("unknown_perspective", path.name, row, "perspective", perspective)
            else:
                yield row, Pair(perspective, a, _language(lang_a), b, _language(lang_b), negative)


def _language(code: str) -> str:
    return _LANGUAGES.get(code, code) or _UNKNOWN_LANGUAGE


def _of_catalogue(items: Items, config: PairsConfig) -> Iterator[Pair]:
    """Each kind in the order of a seeded draw, so that a limit takes a sample."""
    generator = np.random.Generator(np.random.Philox(config.split_seed))

    def pair(perspective: str, a: str, b: str) -> Pair:
        return Pair(perspective, a, _UNKNOWN_LANGUAGE, b, _UNKNOWN_LANGUAGE, of_catalogue=True)

    def titles() -> Iterator[Pair]:
        for title, tags in zip(items.title[1:], items.tags[1:], strict=True):
            yield pair("explanation", title, " ".join(tags))

    def tags() -> Iterator[Pair]:
        for words in items.tags[1:]:
            for two in itertools.combinations(words, 2):
                yield pair("relation", *two)

    def artists() -> Iterator[Pair]:
        by_artist: dict[str, Counter[str]] = {}
        for artist, words in zip(items.artist[1:], items.tags[1:], strict=True):
            if artist:
                by_artist.setdefault(artist, Counter()).update(words)
        for artist, counts in by_artist.items():
            yield pair("relation", artist, " ".join(tag for tag, _ in counts.most_common(8)))

    kinds = {"title_tags": titles, "tag_tags": tags, "artist_tags": artists}
    for kind in config.catalogue:
        # A drawing may lack either; no fault of it. There are too many pairs to keep them all.
        there = sum(bool(p.a and p.b) for p in kinds[kind]())
        order = generator.permutation(there)[: config.catalogue_pairs]
        wanted = {int(place): rank for rank, place in enumerate(order)}
        usable = (p for p in kinds[kind]() if p.a and p.b)
        chosen = [(wanted[k], p) for k, p in enumerate(usable) if k in wanted]
        yield from (p for _, p in sorted(chosen, key=operator.itemgetter(0)))


def _usable(
    numbered: Iterable[tuple[int, Pair]],
    file: str,
    config: PairsConfig,
    seen: set[tuple[str, str, str]],
    report: Report,
) -> Iterator[Pair]:
    for row, pair in numbered:
        name = (pair.perspective, key(pair.a), key(pair.b))
        fault = _fault(pair, name[1], name[2], config.max_characters)
        if not fault and name in seen:
            fault = "duplicate_pair"
        if fault:
            report.add(fault, file, row, "text_a", f"{pair.a} | {pair.b}")
        else:
            seen.add(name)
            yield pair


def _fault(pair: Pair, key_a: str, key_b: str, longest: int) -> str:
    if not key_a or not key_b:
        return "empty_text"
    if key_a == key_b:
        return "same_text"
    if max(len(pair.a), len(pair.b), len(pair.negative)) > longest:
        return "long_text"
    if _HOUSEKEEPING.search(pair.a) or _HOUSEKEEPING.search(pair.b):
        return "housekeeping"
    return ""
