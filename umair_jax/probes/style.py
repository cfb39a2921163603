"""Does the image encoder separate what a picture shows from how it is painted?

Pictures are encoded, and the neighbours of some of them are looked at: those of a style vector
should have the query's style and not its content, those of a content vector the reverse. Baselines
without a network, the same vectors on one scale, and queries that have been moved go along.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32, Int
from rich.console import Console

from umair_jax.data.standardise import log_gram, moments
from umair_jax.encoding import ExtractConfig, FrozenImageEncoder, Pictures, in_batches
from umair_jax.encoding import images as image_encoding
from umair_jax.encoding.progress import EncodingProgress
from umair_jax.probes.baselines import baselines
from umair_jax.probes.neighbours import Question, ask, unit
from umair_jax.probes.pictures import STYLES, LabelledPictures, draw_moves, move_pictures

TRAINED, UNTRAINED, BASELINES = "trained", "untrained", "baselines"
AS_THEY_ARE, MOVED = "as_they_are", "moved"

Vectors = dict[str, Float32[np.ndarray, "_ _"]]
Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """What is measured.

    Attributes:
        queries: Pictures in several styles whose neighbours are looked at; 0 = all. All pictures
            are candidates, and all drawings of the artists are queries too.
        limit_concepts: Use only so many concepts, and so many artists, drawn at random; 0 = all.
        seed: Of these draws and of the moves.
        untrained: Measure the random encoder as well where there is a trained one.
        log_style: Standardised style vectors are those of logarithms, as the ranker takes them.
        draws: Bootstrap draws behind each interval.
    """

    queries: int = 1500
    limit_concepts: int = 0
    seed: int = 0
    untrained: bool = True
    log_style: bool = True
    draws: int = 1000

    def __post_init__(self):
        for name in ("queries", "limit_concepts", "seed", "draws"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more.")


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was measured, and what a figure needs.

    Attributes:
        pictures: Those that could be decoded.
        queries: Rows of the queries.
        vectors: Of the main encoder, "style" and "content" by picture.
        rounds: By round ("as_they_are", and "moved" for styles), then by encoder ("trained",
            "untrained", "baselines"), then by vector, then by question: value, and half of its
            95 % interval under "<question>_half_width". Standardised vectors under
            "standardised", beside the others.
        chance: By question, what neighbours drawn at random give.
        counted: By question, the queries for which some candidate is right.
    """

    pictures: LabelledPictures
    queries: Int[np.ndarray, " Q"]
    vectors: Mapping[str, Float32[np.ndarray, "N _"]]
    rounds: Mapping[str, Mapping[str, Measured]]
    chance: Mapping[str, float]
    counted: Mapping[str, int]

    @property
    def main(self) -> str:
        """The encoder that this is about: the trained one where there is one."""
        return TRAINED if TRAINED in self.rounds[AS_THEY_ARE] else UNTRAINED


def probe(
    pictures: LabelledPictures, config: ExtractConfig, options: ProbeConfig, console: Console
) -> Findings:
    """Encodes labelled pictures and asks their questions of every vector.

    Args:
        pictures: What is encoded; an untrained encoder is calibrated on them.
        config: The encoder and how it runs; trained if it names image weights.
        options: What is measured.
        console: Where progress and notices go.

    Raises:
        ValueError: Too many pictures that cannot be decoded, or too few for their questions.
    """
    with ThreadPoolExecutor(config.decode_threads) as pool:
        encoders = _encoders(pictures, config, options)
        encoded, usable = {}, np.ones(len(pictures), bool)
        for name, encoder in encoders.items():
            encoded[name], usable = _encode(
                encoder, pictures, len(pictures), console, f"{pictures.kind}, {name}"
            )
        good = np.flatnonzero(usable)
        broken = len(pictures) - len(good)
        if len(good) == 0 or broken > config.max_bad_share * len(pictures):
            raise ValueError(
                f"pictures: got {broken} of {len(pictures)} that are missing or cannot be decoded, "
                f"expected at most a share of {config.max_bad_share} "
                "(config.extract.max_bad_share)."
            )
        pictures = pictures.keep(good, **{"without a picture that can be decoded": broken})
        encoded = {
            name: {key: array[good] for key, array in vectors.items()}
            for name, vectors in encoded.items()
        }
        questions, queries = pictures.questions(), pictures.sample(options.queries, options.seed)
        limit = config.pixel_limit
        candidates = {name: _with_both(vectors) for name, vectors in encoded.items()}
        candidates[BASELINES] = baselines(pictures, len(pictures), pool, limit)
        asked = {
            name: {key: array[queries] for key, array in vectors.items()}
            for name, vectors in candidates.items()
        }
        measure = _Measure(questions, queries, candidates, options)
        rounds = {AS_THEY_ARE: measure(asked)}
        if pictures.kind == STYLES:
            moves = draw_moves(len(queries), options.seed)
            moved = move_pictures(pictures.keep(queries), moves, pool, limit)
            asked = {}
            for name, encoder in encoders.items():
                vectors, _ = _encode(encoder, moved, len(moved), console, f"moved, {name}")
                asked[name] = _with_both(vectors)
            asked[BASELINES] = baselines(moved, len(moved), pool, limit)
            rounds[MOVED] = measure(asked)
    main = TRAINED if TRAINED in encoded else UNTRAINED
    return Findings(pictures, queries, encoded[main], rounds, measure.chance, measure.counted)


def _encoders(
    pictures: LabelledPictures,
    config: ExtractConfig,
    options: ProbeConfig,
) -> dict[str, FrozenImageEncoder]:
    settings = {}
    if config.image_weights:
        settings[TRAINED] = config
    if options.untrained or not config.image_weights:
        settings[UNTRAINED] = dataclasses.replace(config, image_weights="")
    rows = range(len(pictures))
    return {
        name: FrozenImageEncoder(setting, image_encoding.build(pictures, rows, setting))
        for name, setting in settings.items()
    }


def _encode(
    encoder: FrozenImageEncoder,
    pictures: Pictures,
    count: int,
    console: Console,
    what: str,
) -> tuple[Vectors, np.ndarray]:
    """Content and style vectors of the first `count` pictures, and which could be decoded."""
    contents, styles, usable = [], [], []
    with EncodingProgress(count, console, what=f"Encoding {what}:") as progress:
        batches = in_batches(range(count), encoder.config.image_batch)
        for batch in encoder.encode(pictures, batches):
            contents.append(batch.content)
            styles.append(batch.style)
            usable.append(batch.decoded.usable)
            progress.advance(len(batch.decoded.usable))
    vectors = {"style": np.concatenate(styles), "content": np.concatenate(contents)}
    return vectors, np.concatenate(usable)


def _with_both(vectors: Vectors) -> Vectors:
    both = np.concatenate([unit(vectors["style"]), unit(vectors["content"])], axis=1)
    return {**vectors, "both": both}


class _Measure:
    """Asks the questions of every vector; chance and counts are those of the queries alone."""

    def __init__(
        self,
        questions: Sequence[Question],
        rows: Int[np.ndarray, " Q"],
        candidates: Mapping[str, Vectors],
        options: ProbeConfig,
    ):
        self._questions, self._rows, self._options = questions, rows, options
        self._candidates = candidates
        self.chance: dict[str, float] = {}
        self.counted: dict[str, int] = {}

    def __call__(self, asked: Mapping[str, Vectors]) -> dict[str, Measured]:
        found = {}
        for name, candidates in self._candidates.items():
            scaled = standardised(asked[name], candidates, self._options.log_style)
            found[name] = self._each(asked[name], candidates)
            found[name]["standardised"] = self._each(*scaled)
        return found

    def _each(self, asked: Vectors, candidates: Vectors) -> Measured:
        answers: Measured = {}
        for key, vectors in candidates.items():
            answers[key] = {}
            for question in self._questions:
                answer = ask(question, self._rows, asked[key], vectors, self._options.draws)
                answers[key][question.name] = answer.value
                answers[key][f"{question.name}_half_width"] = answer.half_width
                self.chance[question.name] = answer.chance
                self.counted[question.name] = answer.queries
        return answers


def standardised(queries: Vectors, candidates: Vectors, log_style: bool) -> tuple[Vectors, Vectors]:
    """Queries and candidates with every channel standardised over the candidates.

    Args:
        queries: By vector.
        candidates: Likewise.
        log_style: Take logarithms of "style" first.

    Returns:
        Both; "both" is put together anew from standardised vectors.
    """
    ready: tuple[Vectors, Vectors] = {}, {}
    for key, vectors in candidates.items():
        if key == "both":
            continue
        pair = queries[key], vectors
        if key == "style" and log_style:
            pair = tuple(log_gram(part) for part in pair)
        mean, deviation = moments(pair[1])
        for into, part in zip(ready, pair, strict=True):
            into[key] = ((part - mean) / deviation).astype(np.float32)
    if "both" in candidates:
        ready = tuple(_with_both(part) for part in ready)  # type: ignore[assignment]
    return ready
