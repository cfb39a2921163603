"""Retrieve, rank, choose, and say why: what the command line and the gallery both call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from rich.console import Console

from umair_jax import encoding, load_run
from umair_jax.data.dataset import Dataset
from umair_jax.data.images import load_square
from umair_jax.data.snapshot import moment_after
from umair_jax.load_run import LoadedRun
from umair_jax.recommending import choice, reasons
from umair_jax.recommending.choice import ChoiceConfig
from umair_jax.recommending.filters import Filters, Rules
from umair_jax.recommending.person import Person
from umair_jax.recommending.reasons import Because
from umair_jax.recommending.scorer import Scorer, Scores
from umair_jax.recommending.vectors import UnitVectors

TASK = "bookmarks"


@runtime_checkable
class Retriever(Protocol):
    """Finds the drawings that are worth ranking.

    Attributes:
        catalogue: Fingerprint of the catalogue whose rows it gives.
    """

    catalogue: str

    def candidates(
        self, people: Sequence[Person], allowed: Sequence[Bool[np.ndarray, " N1"]], count: int
    ) -> list[Int[np.ndarray, " _"]]:
        """At most `count` allowed rows for each of some people, the best first."""
        ...


@dataclasses.dataclass(frozen=True)
class Request:
    """What somebody asks for.

    Attributes:
        choice: Length of the list, drawings of one artist, diversity.
        filters: What may be shown.
        candidates: Drawings to retrieve and rank, where there is a retriever; else all are ranked.
        balance: -1 = towards the content of what the person likes, 1 = towards its style,
            0 = as the ranker has it.
    """

    choice: ChoiceConfig = dataclasses.field(default_factory=ChoiceConfig)
    filters: Filters = dataclasses.field(default_factory=Filters)
    candidates: int = 500
    balance: float = 0.0

    def __post_init__(self):
        if self.candidates < 1 or not -1 <= self.balance <= 1:
            raise ValueError(
                f"got candidates {self.candidates}, balance {self.balance}; expected 1 or more "
                "candidates and a balance of -1 to 1"
            )


@dataclasses.dataclass(frozen=True)
class Pick:
    """A drawing that is recommended.

    Attributes:
        item: Its row.
        probability: Of a bookmark, as the ranker has it.
        weights: Weight of each modality, in the order of the ranker's; empty if it has none.
        because: The bookmarked drawing that it is like; None if there is none.
    """

    item: int
    probability: float
    weights: tuple[float, ...]
    because: Because | None


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """An answer.

    Attributes:
        person: Who asked.
        allowed: Drawings that the filters leave.
        ranked: Of these, the ones that were ranked.
        picks: The list, in the order in which it is shown.
    """

    person: Person
    allowed: int
    ranked: int
    picks: tuple[Pick, ...]


class Recommender:
    """A trained ranker over its catalogue, ready to answer.

    Attributes:
        dataset: Items, users and log.
        moment: Unix seconds; now, for all answers.
        modalities: Names of the weights of a Pick.
        vectors: Of the catalogue.
        step: Updates behind the ranker.
    """

    def __init__(self, run: LoadedRun, retriever: Retriever | None = None) -> None:
        """Reads the vectors that the ranker was trained on.

        Args:
            run: A run of the ranker.
            retriever: Finds candidates; None = every allowed drawing is ranked.

        Raises:
            ValueError: People cannot be folded in.
        """
        job = run.bookmarks
        self.dataset: Dataset = job.dataset
        if retriever and retriever.catalogue != job.dataset.catalogue_fingerprint:
            raise ValueError(
                "retrieval: got a run over another catalogue than the ranker's; expected one that "
                "was trained with the same --config.data"
            )
        self.step = run.step
        self.moment = moment_after(job.dataset)
        self.modalities = tuple(job.task.modality_names)
        self._extract, self._bank = job.extract, job.bank_folder
        self.vectors = UnitVectors(job.bank())
        self._rules = Rules(job.dataset)
        self._scorer = Scorer(run, self.moment)
        self._retriever = retriever

    def recommend(self, person: Person, request: Request) -> Recommendations:
        """The list for one person."""
        return self.recommend_all([person], request)[0]

    def recommend_all(self, people: Sequence[Person], request: Request) -> list[Recommendations]:
        """The lists for several people, scored together."""
        allowed = [self._rules.allowed(p, request.filters, self.moment) for p in people]
        if self._retriever is None:
            items = [np.flatnonzero(rows) for rows in allowed]
        else:
            items = self._retriever.candidates(people, allowed, request.candidates)
        scored = self._scorer(people, items)
        return [
            Recommendations(p, int(a.sum()), len(s.item), self._picks(p, s, request))
            for p, a, s in zip(people, allowed, scored, strict=True)
        ]

    def unknown_tags(self, filters: Filters) -> tuple[str, ...]:
        """Blocked tags that no drawing has."""
        return self._rules.unknown(filters)

    def similar(
        self, by: str, vector: Float[np.ndarray, " D"], k: int, without: Sequence[int] = ()
    ) -> tuple[Int[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
        """The drawings nearest to a vector with their cosines.

        Args:
            by: content, style or text.
            vector: Of a drawing of the catalogue, or of any picture, see `look_at`.
            k: How many, at most.
            without: Rows that are left out.
        """
        allowed = self.dataset.items.published <= self.moment
        allowed[[0, *without]] = False
        return self.vectors.nearest(by, vector, allowed, k)

    def look_at(self, picture: bytes) -> dict[str, Float32[np.ndarray, " D"]]:
        """Content and style of any picture, as the encoder of the catalogue sees it.

        Args:
            picture: An encoded file.

        Raises:
            BadImage: It cannot be decoded.
        """
        size, limit = self._extract.image.image_size, self._extract.pixel_limit
        square = load_square(picture, size, limit)
        encoders = encoding.load(self._bank, dataclasses.replace(self._extract, image_batch=1))
        content, style = encoders.start_images(square[None])
        return {"content": np.asarray(content[0]), "style": np.asarray(style[0])}

    def _picks(self, person: Person, scores: Scores, request: Request) -> tuple[Pick, ...]:
        items, artists = scores.item, self.dataset.items.artist
        score = self._balanced(person, scores, request.balance)

        def alike(place: int, others: Int[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
            one = items[place : place + 1]
            cosines = [self.vectors.cosines(v, one, items[others])[0] for v in self.vectors.by]
            return np.mean(cosines, axis=0)

        chosen = choice.choose(score, [artists[i] for i in items], alike, request.choice)
        weights = scores.weights[chosen]
        named = {name: weights[:, m] for m, name in enumerate(self.modalities)}
        because = reasons.nearest_liked(self.vectors, items[chosen], person.liked, named)
        return tuple(
            Pick(int(items[place]), float(scores.probability[place]), tuple(w.tolist()), why)
            for place, w, why in zip(chosen, weights, because, strict=True)
        )

    def _balanced(self, person: Person, scores: Scores, balance: float) -> Float[np.ndarray, " K"]:
        """Logits, shifted by how much nearer a drawing is to the liked style than to the content.

        The shift has the deviation of the logits times the balance: at 1 the ranker and the eye
        count the same.
        """
        p = np.clip(scores.probability.astype(np.float64), 1e-7, 1 - 1e-7)
        logit = np.log(p / (1 - p))
        if not balance or not len(person.liked) or len(logit) < 2:
            return logit
        style, content = (
            _standard(self.vectors.taste(name, person.liked)[scores.item])
            for name in ("style", "content")
        )
        return logit + balance * logit.std() * _standard(style - content)


def _standard(values: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    deviation = values.std()
    return (values - values.mean()) / (deviation if deviation > 0 else 1)


def load(
    workdir: str | Path,
    checkpoint: str,
    console: Console,
    retriever: Retriever | None = None,
) -> Recommender:
    """The recommender of a run.

    Args:
        workdir: Folder of a run of the ranker.
        checkpoint: best, newest, or the number of updates behind it.
        console: Where notices go.
        retriever: See Recommender.

    Raises:
        ValueError: There is no such run or checkpoint, or it is of another task.
    """
    task = load_run.recorded(workdir)["config"].get("task", TASK)
    if task != TASK:
        raise ValueError(
            f"{workdir}: got a run of the task {task!r}; expected {TASK!r}: name the folder of a "
            "run of configs/base.py"
        )
    return Recommender(load_run.load(workdir, checkpoint, console), retriever)
