"""Pairs of texts as columns, held out by concept: no held-out text is in any training pair."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from umair_jax.data import text_pairs
from umair_jax.data.dataset import Items
from umair_jax.data.image_tags import PARTS
from umair_jax.data.report import Report
from umair_jax.data.text_pairs import PERSPECTIVES, Pair, PairsConfig


@dataclasses.dataclass(frozen=True)
class TextPairs:
    """Pairs as places in one list of texts.

    Attributes:
        texts: T different texts, as they are written where they occur first.
        perspective: int32 [P], places in PERSPECTIVES.
        a: int32 [P], places in `texts`.
        b: int32 [P], likewise.
        negative: int32 [P], likewise; -1 = none.
        languages: The codes that occur, in alphabetical order.
        lang_a: int32 [P], places in `languages`.
        lang_b: int32 [P], likewise.
        parts: "train", "valid" and "test" -> places of their pairs, ascending.
        judging: bool [P], pairs of the file, which alone say what is held out and are held out;
            without a file, all.
        bridges: Pairs of a held-out text with a text of another part, and pairs of the catalogue
            with a held-out text; nobody uses them.
        report: What could not be used.
    """

    texts: tuple[str, ...]
    perspective: Int32[np.ndarray, " P"]
    a: Int32[np.ndarray, " P"]
    b: Int32[np.ndarray, " P"]
    negative: Int32[np.ndarray, " P"]
    languages: tuple[str, ...]
    lang_a: Int32[np.ndarray, " P"]
    lang_b: Int32[np.ndarray, " P"]
    judging: Bool[np.ndarray, " P"]
    parts: dict[str, Int32[np.ndarray, " _"]]
    bridges: int
    report: Report

    def texts_of(self, part: str) -> list[str]:
        """The texts of a part's pairs, each once; a tokenizer may learn from those of "train"."""
        rows = self.parts[part]
        used = np.unique(np.concatenate([self.a[rows], self.b[rows], self.negative[rows]]))
        return [self.texts[i] for i in used if i >= 0]


class _Columns(NamedTuple):
    texts: tuple[str, ...]
    languages: tuple[str, ...]
    perspective: Int32[np.ndarray, " P"]
    a: Int32[np.ndarray, " P"]
    b: Int32[np.ndarray, " P"]
    negative: Int32[np.ndarray, " P"]
    lang_a: Int32[np.ndarray, " P"]
    lang_b: Int32[np.ndarray, " P"]
    judging: Bool[np.ndarray, " P"]


def build(items: Items | None, config: PairsConfig) -> TextPairs:
    """Reads, makes, filters and splits the pairs.

    Args:
        items: The catalogue; None = none, then `config.catalogue` is ignored.
        config: See PairsConfig.

    Raises:
        ValueError: A file that is no table of pairs or holds too many bad rows; or a part without
            pairs.
    """
    report = Report()
    columns = _indexed(text_pairs.read(items, config, report))
    report.check(config.max_bad_share)
    side = _sides(columns, config)
    both = np.where(side[columns.a] == side[columns.b], side[columns.a], -1)
    # Held-out pairs are judged without their negatives; training must not see a held-out text.
    negative = columns.negative
    both = np.where((both == 0) & (negative >= 0) & (side[negative] != 0), -1, both)
    both = np.where((both > 0) & ~columns.judging, -1, both)
    parts = {name: np.flatnonzero(both == i).astype(np.int32) for i, name in enumerate(PARTS)}
    empty = [name for name, rows in parts.items() if not len(rows)]
    if empty:
        raise ValueError(
            f"pairs: {len(both):,} pairs with fractions {config.fractions} leave "
            f"{' and '.join(empty)} empty; use more pairs or other fractions"
        )
    return TextPairs(**columns._asdict(), parts=parts, bridges=int((both < 0).sum()), report=report)


def _indexed(pairs: Iterable[Pair]) -> _Columns:
    places: dict[str, int] = {}
    texts: list[str] = []
    codes: dict[str, int] = {}
    rows: list[tuple[int, ...]] = []

    def place(text: str) -> int:
        found = places.setdefault(text_pairs.key(text), len(texts))
        if found == len(texts):
            texts.append(" ".join(text.split()))
        return found

    for pair in pairs:
        negative = place(pair.negative) if text_pairs.key(pair.negative) else -1
        spoken = (codes.setdefault(code, len(codes)) for code in (pair.lang_a, pair.lang_b))
        perspective = PERSPECTIVES.index(pair.perspective)
        places_of = place(pair.a), place(pair.b), negative
        rows.append((perspective, *places_of, *spoken, not pair.of_catalogue))
    table = np.array(rows, np.int32).reshape(-1, 7).T.copy()
    languages = sorted(codes)
    rank = np.array([languages.index(code) for code in codes], np.int32)
    perspective, a, b, negative, lang_a, lang_b, of_file = table
    judging = of_file.astype(bool) if of_file.any() else np.ones(len(rows), bool)
    return _Columns(
        tuple(texts),
        tuple(languages),
        perspective,
        a,
        b,
        negative,
        rank[lang_a],
        rank[lang_b],
        judging,
    )


def _sides(columns: _Columns, config: PairsConfig) -> Int32[np.ndarray, " T"]:
    """The part of each text, as a place in PARTS.

    A concept is the first text of a pair: it is held out by a hash of its letters, not by its place
    among the pairs, and takes its partners with it. Pairs that come or go still move a text that
    they make frequent, or make the partner of a held-out one.
    """
    count = len(columns.texts)
    a, b = columns.a[columns.judging], columns.b[columns.judging]
    mentions = np.bincount(a, minlength=count) + np.bincount(b, minlength=count)
    rare = mentions <= config.max_mentions
    edges = np.cumsum([config.fractions[2], config.fractions[1]])
    drawn = np.array([_draw(text, config.split_seed) for text in columns.texts])
    own = np.select([drawn < edges[0], drawn < edges[1]], [2, 1], 0).astype(np.int32)
    own[~rare] = 0
    concept = np.zeros(count, bool)
    concept[a] = True
    side = np.where(concept, own, 0).astype(np.int32)
    for part in (2, 1):
        partners = b[side[a] == part]
        free = partners[rare[partners] & (side[partners] == 0)]
        side[free] = part
    return side


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that depends on the text and the seed alone."""
    spelled = f"{seed}:{text_pairs.key(text)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelled, digest_size=8).digest()) / 2**64
