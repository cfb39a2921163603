"""Weights that mean something, and weights that do not."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import log_loss, roc_auc_score

from umair_jax.probes.contributions import deletion, rank_correlations

NAMES = ("meta", "content", "style", "text")


def world(noise, seed=0, users=60, each=9):
    """Weights that follow the users' mixtures up to noise."""
    rng = np.random.default_rng(seed)
    mixture = np.concatenate([np.zeros((1, 4)), rng.dirichlet(np.ones(4), users)])
    user = np.repeat(np.arange(1, users + 1), each)
    split = rng.random(len(user))
    content = mixture[user, 0]
    truth = np.stack(
        [mixture[user, 2:].sum(axis=1), content * split, mixture[user, 1], content * (1 - split)],
        axis=1,
    )
    weights = np.abs(truth + noise * rng.normal(size=truth.shape))
    weights /= weights.sum(axis=1, keepdims=True)
    order = rng.permutation(len(user))
    return weights[order], user[order], mixture.astype(np.float32)


def test_weights_that_are_the_mixture_correlate_fully():
    weights, user, mixture = world(0.0)
    found = rank_correlations(weights, NAMES, user, mixture)
    assert set(found) == {"content", "style", "artist and popularity", "mean"}
    assert min(found.values()) > 0.999


def test_noise_lowers_the_correlation_and_a_permutation_ends_it():
    values = [rank_correlations(w, NAMES, u, m)["mean"] for w, u, m in map(world, (0.0, 0.5, 2.0))]
    assert values[0] > values[1] > values[2]
    weights, user, mixture = world(0.0)
    shuffled = mixture[np.random.default_rng(1).permutation(len(mixture))]
    assert abs(rank_correlations(weights, NAMES, user, shuffled)["mean"]) < 0.25


def test_a_correlation_is_that_of_the_means_over_users():
    weights, user, mixture = world(0.7, users=20)
    rows = [weights[user == u, 2].mean() for u in range(1, 21)]
    expected = spearmanr(mixture[1:, 1], rows).statistic
    assert rank_correlations(weights, NAMES, user, mixture)["style"] == pytest.approx(expected)
    few = np.concatenate([np.flatnonzero(user != 3), np.flatnonzero(user == 3)[:1]])
    kept = rank_correlations(weights[few], NAMES, user[few], mixture, at_least=2)["style"]
    others = [u for u in range(1, 21) if u != 3]
    rows = [weights[user == u, 2].mean() for u in others]
    assert kept == pytest.approx(spearmanr(mixture[others, 1], rows).statistic)


def test_a_taste_whose_modality_is_not_there_is_left_out():
    weights, user, mixture = world(0.1)
    found = rank_correlations(weights[:, :3], NAMES[:3], user, mixture)
    assert set(found) == {"content", "style", "artist and popularity", "mean"}
    found = rank_correlations(weights[:, 1:2], NAMES[1:2], user, mixture)
    assert set(found) == {"content", "mean"}


def test_deletion_masks_each_examples_own_modality():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    user = rng.integers(1, 30, 400).astype(np.int32)
    weights = rng.dirichlet(np.full(4, 0.5), 400)
    # What weighs more says more.
    parts = rng.normal(size=(400, 4)) + 4 * weights * (label[:, None] - 0.5)

    def probability(kept):
        return 1 / (1 + np.exp(-(weights * parts * kept).sum(axis=1)))

    def without(name):
        return probability(np.arange(4) != NAMES.index(name))

    whole = {"probability": probability(np.ones(4)), "weights": weights}
    found = deletion(label, user, whole, without, NAMES, draws=200)
    assert found["auc"] == pytest.approx(roc_auc_score(label, whole["probability"]))
    largest = np.array([without(NAMES[k])[i] for i, k in enumerate(weights.argmax(axis=1))])
    assert found["auc_without_largest"] == pytest.approx(roc_auc_score(label, largest))
    assert found["log_loss_without_largest"] == pytest.approx(log_loss(label, largest))
    style = without("style")
    assert found["log_loss_without_style"] == pytest.approx(log_loss(label, style))
    for name, sign in (("auc", -1), ("log_loss", 1)):
        key = f"largest_hurts_more_{name}"
        difference = found[f"{name}_without_largest"] - found[f"{name}_without_smallest"]
        assert found[key] == pytest.approx(sign * difference)
        assert 0 < found[f"{key}_low"] < found[key] < found[f"{key}_high"]
