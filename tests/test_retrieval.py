import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score

from umair_jax.training import retrieval


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_mrr_is_that_of_scikit_learn():
    """With one partner a query, average precision is the reciprocal rank."""
    rng = np.random.default_rng(0)
    query, target = (unit(rng.normal(size=(60, 8))) for _ in range(2))
    rank = retrieval.ranks(query, np.arange(60), target, np.arange(100, 160))
    expected = label_ranking_average_precision_score(np.eye(60), query @ target.T)
    assert retrieval.summarise(rank)["mrr"] == pytest.approx(expected)


def test_other_partners_and_the_text_itself_do_not_compete():
    query = unit(np.array([[1.0, 0], [1.0, 0], [0, 1.0]]))
    target = unit(np.array([[1.0, 0.1], [1.0, 0.5], [1.0, 0.0]]))
    # Text 7 has the partners 1 and 2; text 7 is also somebody's partner, and its own nearest.
    rank = retrieval.ranks(query, np.array([7, 7, 8]), target, np.array([1, 2, 7]))
    assert rank.tolist() == [1, 1, 3]


def test_a_repeated_target_is_one_candidate_and_ties_count_against():
    query = unit(np.array([[1.0, 0], [0, 1.0], [1.0, 1.0]]))
    target = unit(np.array([[0, 1.0], [0, 1.0], [1.0, 0]]))
    rank = retrieval.ranks(query, np.array([1, 2, 3]), target, np.array([5, 5, 6]))
    assert rank.tolist() == [2, 1, 2]


def test_recalls_count_ranks():
    found = retrieval.summarise(np.array([1, 2, 10, 11]))
    assert found["recall_at_1"] == 0.25
    assert found["recall_at_10"] == 0.75
    assert found["mrr"] == pytest.approx((1 + 0.5 + 0.1 + 1 / 11) / 4)


def test_alignment_and_uniformity_by_hand():
    one = np.array([[1.0, 0], [0, 1.0]])
    other = np.array([[1.0, 0], [0, -1.0]])
    assert retrieval.alignment(one, other) == pytest.approx(2.0)
    assert retrieval.uniformity(one) == pytest.approx(-4.0)  # both pairs are sqrt(2) apart
    same = np.repeat(one[:1], 5, 0)
    assert retrieval.uniformity(same) == pytest.approx(0.0)
