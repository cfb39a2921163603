"""What a ranker recommends to a few people, at the moment when their test part begins.

Everything is as of one moment per person: the second of the first test example. What the person
had bookmarked by then is known to the model and left out of the recommendations; what the test part
says afterwards is only compared with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from umair_jax.data import ranking
from umair_jax.data.batches import BatchSource
from umair_jax.data.dataset import Dataset
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.splits import TEST
from umair_jax.training.evaluation import Arrays

SHOWN = 8
ENOUGH = 10
BOOKMARKED, PASSED, UNSEEN = "bookmarked", "passed", "unseen"


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A drawing that the ranker puts before a person.

    Attributes:
        item: Row of the drawing.
        probability: Of a bookmark, as the model has it.
        weights: Weight of each modality, in the model's order; empty if it has none.
        outcome: What the test part says: "bookmarked", "passed" (shown and not bookmarked) or
            "unseen".
    """

    item: int
    probability: float
    weights: tuple[float, ...]
    outcome: str


@dataclasses.dataclass(frozen=True)
class Person:
    """One person and what is recommended.

    Attributes:
        user: Row of the user.
        before: Bookmarks before the moment.
        recent: Rows of the last of them, the newest first.
        test_examples: Examples of the person in the test part.
        test_bookmarks: Bookmarks among them.
        candidates: Drawings that were scored.
        recommended: The best of them, the most probable first.
        mean_weights: Mean weights of the modalities over the person's test examples; empty if
            the model has none.
        true_mixture: Of a simulated person; empty for a real one. No model input.
    """

    user: int
    before: int
    recent: tuple[int, ...]
    test_examples: int
    test_bookmarks: int
    candidates: int
    recommended: tuple[Recommendation, ...]
    mean_weights: tuple[float, ...]
    true_mixture: tuple[float, ...]


def eligible(data: RankingData) -> Int[np.ndarray, " U"]:
    """Rows of the users with enough test examples, ascending; if nobody has, all who have any."""
    examples = np.bincount(data.columns["user"][data.split == TEST])
    enough = np.flatnonzero(examples >= ENOUGH)
    return enough if len(enough) else np.flatnonzero(examples)


def choose(data: RankingData, count: int, seed: int = 0) -> Int[np.ndarray, " C"]:
    """Draws up to `count` of the eligible users, the same for the same seed; ascending.

    Raises:
        ValueError: `count` below 1.
    """
    if count < 1:
        raise ValueError(f"users: got {count}; expected 1 or more people to show")
    users = eligible(data)
    drawn = np.random.default_rng(seed).choice(users, min(count, len(users)), replace=False)
    return np.sort(drawn)


def recommend(
    dataset: Dataset,
    data: RankingData,
    config: RankingConfig,
    user: int,
    predict: Callable[[BatchSource], Arrays],
    batch_size: int,
    test: Arrays,
) -> Person:
    """Scores every drawing that a person could be shown and has not bookmarked.

    Args:
        dataset: Items, users and log.
        data: The same, ready for the ranker.
        config: What `data` was built with.
        user: Row of a user with a test example.
        predict: The ranker.
        batch_size: Examples a batch.
        test: Its predictions for the test examples, in their order.

    Returns:
        The person with up to 8 bookmarks and up to 8 recommendations.
    """
    log = dataset.interactions
    mine = np.flatnonzero(log.user == user)
    tested = mine[data.split[mine] == TEST]
    moment = int(log.timestamp[tested[0]])
    marked = mine[log.label[mine] == 1]
    earlier = marked[log.timestamp[marked] < moment]
    # Held-out items aside, a cold split has training bookmarks after the moment; known is known.
    known = marked[data.split[marked] != TEST]
    item = np.flatnonzero(candidates(dataset, moment, log.item[[*earlier, *known]]))
    columns = ranking.columns_at(
        dataset,
        data,
        config,
        user=user,
        state=int(data.columns["state"][tested[0]]),
        item=item.astype(np.int32),
        moment=moment,
    )
    arrays = predict(BatchSource(columns, batch_size, shuffle=False)) if len(item) else None
    recommended = _best(arrays, item, _outcomes(dataset, tested)) if arrays else ()
    weights = test.get("weights")
    at = np.searchsorted(data.rows("test"), tested)
    truth = dataset.users.true_mixture
    return Person(
        user=int(user),
        before=len(earlier),
        recent=tuple(log.item[earlier[::-1][:SHOWN]].tolist()),
        test_examples=len(tested),
        test_bookmarks=int(log.label[tested].sum()),
        candidates=len(item),
        recommended=recommended,
        mean_weights=() if weights is None else tuple(weights[at].mean(axis=0).tolist()),
        true_mixture=() if truth is None else tuple(truth[user].tolist()),
    )


def candidates(
    dataset: Dataset, moment: int, bookmarked: Int[np.ndarray, " K"]
) -> Bool[np.ndarray, " N1"]:
    """Which drawings can be recommended at a moment.

    Args:
        dataset: Items with their time of publication; unknown times count as early.
        moment: Unix seconds.
        bookmarked: Rows that are left out.
    """
    allowed = dataset.items.published <= moment
    allowed[bookmarked] = False
    allowed[0] = False  # the placeholder
    return allowed


def _best(
    arrays: Arrays, item: Int[np.ndarray, " K"], outcomes: dict[int, str]
) -> tuple[Recommendation, ...]:
    probability: Float[np.ndarray, " K"] = arrays["probability"]
    weights = arrays.get("weights")
    order = np.argsort(-probability, kind="stable")[:SHOWN]
    return tuple(
        Recommendation(
            item=int(item[k]),
            probability=float(probability[k]),
            weights=() if weights is None else tuple(weights[k].tolist()),
            outcome=outcomes.get(int(item[k]), UNSEEN),
        )
        for k in order
    )


def _outcomes(dataset: Dataset, tested: Int[np.ndarray, " T"]) -> dict[int, str]:
    """What became of every drawing of a person's test examples."""
    log = dataset.interactions
    outcomes: dict[int, str] = {}
    for row in tested:
        item = int(log.item[row])
        if log.label[row] == 1:
            outcomes[item] = BOOKMARKED
        elif log.sampled is None or not log.sampled[row]:
            outcomes.setdefault(item, PASSED)  # a bookmark at another time outweighs it
    return outcomes
