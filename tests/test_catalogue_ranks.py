import itertools

import numpy as np
import pytest

from umair_jax.training import catalogue_ranks
from umair_jax.training.catalogue_ranks import Ranks, ranks, recall_at, reciprocal_rank, summarise


def found_in(score, allowed, target):
    return ranks(lambda r: score[r], lambda r: allowed[r], target, score.shape[1])


def test_it_is_the_mean_over_all_orders_of_the_tied(monkeypatch):
    rng = np.random.default_rng(0)
    score = rng.integers(0, 3, (7, 6)).astype(np.float32)
    allowed, target = rng.random((7, 6)) < 0.7, rng.integers(0, 6, 7)
    allowed[np.arange(7), target] = True
    monkeypatch.setattr(catalogue_ranks, "_BLOCK", 12)  # two questions at a time
    found = found_in(score, allowed, target)
    for q in range(7):
        items = [i for i in range(6) if allowed[q, i]]
        orders = [
            order.index(target[q]) + 1
            for order in itertools.permutations(items)
            if all(score[q, a] >= score[q, b] for a, b in itertools.pairwise(order))
        ]
        for k in (1, 2, 4):
            assert recall_at(found, k)[q] == pytest.approx(np.mean(np.array(orders) <= k))
        assert reciprocal_rank(found)[q] == pytest.approx(np.mean(1 / np.array(orders)))


def test_a_score_that_is_no_number_is_never_good_news():
    score = np.array([[1, np.nan, 3], [np.nan, 2, 3], [np.nan] * 3], np.float32)
    found = found_in(score, np.ones((3, 3), bool), np.array([2, 0, 1]))
    np.testing.assert_array_equal(found.better, [1, 3, 3])
    np.testing.assert_array_equal(recall_at(found, 3), [1, 0, 0])


def test_intervals_are_over_users():
    better, user = np.array([0, 0, 0, 40, 40, 40]), np.array([1, 1, 1, 2, 2, 2])
    found = summarise(Ranks(better, np.ones(6, int)), user, (10, 100), draws=200)
    assert set(found) == {
        f"{name}{end}"
        for name in ("recall_at_10", "recall_at_100", "mrr")
        for end in ("", "_low", "_high")
    }
    # Two users, one always found and one never: a draw has either of them twice, or both.
    assert (found["recall_at_10"], found["recall_at_10_low"], found["recall_at_10_high"]) == (
        0.5,
        0.0,
        1.0,
    )
    assert found["recall_at_100_low"] == found["recall_at_100_high"] == 1.0
    assert found["mrr"] == pytest.approx((1 + 1 / 41) / 2)
    assert set(summarise(Ranks(better, np.ones(6, int)), user, (10,))) == {"recall_at_10", "mrr"}
