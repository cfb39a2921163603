import time

import numpy as np
import pytest
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from umair_jax.training import metrics

METRICS = ("auc", "log_loss", "gauc", "ndcg_at_10", "recall_at_10", "ece")


def predictions(n=3000, users=80, decimals=1, seed=0):
    generator = np.random.default_rng(seed)
    probability = np.round(generator.random(n), decimals)
    label = (generator.random(n) < 0.3 + 0.4 * probability).astype(np.int8)
    return label, probability, generator.integers(0, users, n)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_auc_and_log_loss_match_scikit_learn(decimals):
    label, probability, _ = predictions(decimals=decimals)
    assert metrics.auc(label, probability) == pytest.approx(roc_auc_score(label, probability))
    inside = np.clip(probability, 0.01, 0.99)
    assert metrics.log_loss(label, inside) == pytest.approx(log_loss(label, inside))


@pytest.mark.parametrize("decimals", [1, 12])
def test_metrics_per_user_match_scikit_learn(decimals):
    label, probability, user = predictions(decimals=decimals)
    label[user == 3] = 0
    label[user == 4] = 1
    aucs, sizes, ndcgs = [], [], []
    for one in np.unique(user):
        y, p = label[user == one], probability[user == one]
        if 0 < y.sum() < len(y):
            aucs.append(roc_auc_score(y, p))
            sizes.append(len(y))
        if y.sum():
            ndcgs.append(ndcg_score(y[None], p[None], k=10))
    expected = np.average(aucs, weights=sizes)
    assert metrics.gauc(label, probability, user) == pytest.approx(expected)
    assert metrics.ndcg_at_k(label, probability, user) == pytest.approx(np.mean(ndcgs))


def test_recall_by_hand():
    user = np.array(["a"] * 4 + ["b"] * 3 + ["c"])
    label = np.array([1, 0, 1, 0, 0, 1, 0, 0])
    score = np.array([0.9, 0.8, 0.7, 0.1, 0.5, 0.5, 0.5, 0.3])
    # a: one of two positives among the first two; b: three tied, two of them shown; c: none.
    assert metrics.recall_at_k(label, score, user, k=2) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_ece_by_hand():
    label = np.array([1, 0, 1, 1])
    probability = np.array([0.55, 0.65, 0.95, 1.0])
    # Bins of 0.1: gaps 0.45, 0.65, and (0.05 + 0.0) together.
    assert metrics.ece(label, probability, bins=10) == pytest.approx((0.45 + 0.65 + 0.05) / 4)


def test_ties_do_not_depend_on_the_order():
    label, probability, user = predictions()
    shuffle = np.random.default_rng(5).permutation(len(label))
    first = metrics.evaluate_predictions(label, probability, user, draws=20)
    second = metrics.evaluate_predictions(
        label[shuffle], probability[shuffle], user[shuffle], draws=20
    )
    assert first == pytest.approx(second)


def test_intervals_match_resampling_users_one_by_one():
    label, probability, user = predictions(n=400, users=20)
    draws = 40
    result = metrics.evaluate_predictions(label, probability, user, draws=draws, seed=3)
    weights = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), size=draws)
    values = {name: [] for name in METRICS}
    for weight in weights:
        # A user drawn twice is two users.
        parts = [np.flatnonzero(user == u) for u, times in enumerate(weight) for _ in range(times)]
        names = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        chosen = np.concatenate(parts)
        drawn = metrics.evaluate_predictions(label[chosen], probability[chosen], names, draws=0)
        for name in METRICS:
            values[name].append(drawn[name])
    for name in METRICS:
        low, high = np.percentile(values[name], [2.5, 97.5])
        assert result[f"{name}_low"] == pytest.approx(low)
        assert result[f"{name}_high"] == pytest.approx(high)
        assert low <= high


@pytest.mark.parametrize("decimals", [1, 12])
def test_many_draws_give_what_few_at_a_time_do(decimals):
    label, probability, user = predictions(decimals=decimals)
    many = metrics.bootstrap(label, probability, user, ["auc"], 3 * metrics._MANY_DRAWS)["auc"]
    code = np.unique(user, return_inverse=True)[1]
    weights = metrics.draw_users(80, len(many), 0)
    few = [metrics._auc(label, probability, code)(row[None])[0] for row in weights]
    np.testing.assert_array_equal(many, few)


def test_keys_and_single_class():
    result = metrics.evaluate_predictions(np.zeros(3), np.full(3, 0.2), np.arange(3), draws=5)
    assert set(result) == {n + end for n in METRICS for end in ("", "_low", "_high")}
    assert np.isnan(result["auc"])
    assert np.isnan(result["ndcg_at_10_low"])
    assert result["log_loss"] == pytest.approx(-np.log(0.8))


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([], [], "no examples"),
        ([0, 2], [0.5, 0.5], "got 2.0 at example 1"),
        ([0, 1], [0.5, np.nan], "got nan at example 1"),
        ([0, 1], [0.5, 1.5], "got 1.5"),
    ],
)
def test_mistakes_are_named(label, probability, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_predictions(
            np.array(label, float), np.array(probability, float), np.zeros(len(label), int)
        )


def test_two_hundred_draws_are_fast():
    label, probability, user = predictions(n=24_000, users=1500, decimals=12)
    spent = []
    for _ in range(3):
        began = time.process_time()
        metrics.evaluate_predictions(label, probability, user)
        spent.append(time.process_time() - began)
    assert min(spent) < 3.0
