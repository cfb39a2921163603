import dataclasses

import numpy as np
import pytest
import xxhash
from scipy.stats import rankdata

from umair_jax.data.pixel_statistics import catalogue_statistics
from umair_jax.data.simulate import SimulationConfig, simulate_bookmarks
from umair_jax.data.sources.openclipart import OpenClipart

DAY = 86_400
SMALL = SimulationConfig(users=40, impressions=(20, 40))


@pytest.fixture(scope="module")
def full():
    """The log that the built-in catalogue shows by default."""
    return OpenClipart(0)._simulation


@pytest.fixture(scope="module")
def catalogue():
    table = OpenClipart(0, limit=200)._table
    return table["image"], [tags or () for tags in table["tags"]], table["artist"]


def auc(label, score):
    rank = rankdata(score)
    ones = int(label.sum())
    zeros = len(label) - ones
    return (rank[label == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros)


def test_size_shares_and_ceiling(full):
    assert abs(len(full.label) - 240_000) < 5_000
    assert abs(full.label.mean() - 1 / 3) < 0.02
    assert abs(auc(full.label, full.true_probability) - 0.925) < 0.015
    late = slice(int(0.9 * len(full.label)), None)
    assert abs(auc(full.label[late], full.true_probability[late]) - 0.92) < 0.02
    assert full.user_mixture.shape == (1500, 4)
    assert len(np.unique(full.user)) == 1500
    count = np.bincount(full.user)
    assert count.min() >= 80
    assert count.max() <= 240


def test_every_machine_draws_the_same_log(full):
    # Tables of different machines compare only if people saw and bookmarked the same drawings.
    digest = xxhash.xxh3_64()
    for column in (full.user, full.item, full.timestamp, full.label):
        digest.update(column.tobytes())
    assert digest.hexdigest() == "3bf827f438054114"


def test_labels_are_drawn_from_their_probabilities(full):
    edges = np.quantile(full.true_probability, np.linspace(0, 1, 11))
    part = np.clip(np.searchsorted(edges, full.true_probability) - 1, 0, 9)
    for k in range(10):
        inside = part == k
        expected = full.true_probability[inside].mean()
        assert abs(full.label[inside].mean() - expected) < 0.012


def test_mixtures_follow_the_dirichlet(full):
    np.testing.assert_allclose(full.user_mixture.sum(axis=1), 1, atol=1e-5)
    wanted = np.array([0.5, 0.5, 0.3, 0.2]) / 1.5
    np.testing.assert_allclose(full.user_mixture.mean(axis=0), wanted, atol=0.03)


def test_time(full):
    assert (np.diff(full.timestamp) >= 0).all()
    start = 1_735_689_600
    assert start <= full.timestamp[0]
    assert full.timestamp[-1] < start + 180 * DAY + 3600
    assert abs((full.published >= start).mean() - 0.7) < 0.03
    age = full.timestamp - full.published[full.item]
    assert age.min() >= -1  # nothing is shown before it is out
    # Exposure decays: by an order of magnitude after some half-lives of 18 days.
    young, old = ((age < 10 * DAY).sum(), ((age > 100 * DAY) & (age < 110 * DAY)).sum())
    assert young > 10 * old


def test_nobody_sees_a_drawing_twice(full):
    pairs = full.user.astype(np.int64) * 10_000 + full.item
    assert len(np.unique(pairs)) == len(pairs)


def test_content_taste_changes_half_way(catalogue):
    config = dataclasses.replace(SMALL, mixture=(50.0, 0.01, 0.01, 0.01), users=60)
    log = simulate_bookmarks(*catalogue, seed=1, config=config)
    half = log.timestamp >= 1_735_689_600 + 90 * DAY
    tags = [set(names) for names in catalogue[1]]

    def likeness(user, first, second):
        liked = [
            set().union(*[tags[i] for i in log.item[(log.user == user) & part & (log.label == 1)]])
            for part in (first, second)
        ]
        return len(liked[0] & liked[1]) / max(1, min(map(len, liked)))

    odd = np.arange(len(half)) % 2 == 0
    same = [likeness(u, ~half & odd, ~half & ~odd) for u in range(60)]
    other = [likeness(u, ~half, half) for u in range(60)]
    assert np.mean(same) > np.mean(other) + 0.1


def test_deterministic_from_the_seed(catalogue):
    first, again = (simulate_bookmarks(*catalogue, seed=3, config=SMALL) for _ in range(2))
    other = simulate_bookmarks(*catalogue, seed=4, config=SMALL)
    for field in dataclasses.fields(first):
        one = getattr(first, field.name)
        np.testing.assert_array_equal(one, getattr(again, field.name))
        assert not np.array_equal(one, getattr(other, field.name))
    assert [first.user.dtype, first.item.dtype, first.timestamp.dtype] == ["i4", "i4", "i8"]
    assert [first.label.dtype, first.true_probability.dtype] == ["i1", "f4"]


def test_style_tastes_are_felt(catalogue):
    config = dataclasses.replace(SMALL, mixture=(0.01, 50.0, 0.01, 0.01), users=80)
    log = simulate_bookmarks(*catalogue, seed=1, config=config)
    points = catalogue_statistics(catalogue[0])
    spread = []
    for user in range(80):
        liked = points[log.item[(log.user == user) & (log.label == 1)]]
        if len(liked) > 3:
            spread.append(np.linalg.norm(liked - liked.mean(axis=0), axis=1).mean())
    everything = np.linalg.norm(points - points.mean(axis=0), axis=1).mean()
    assert np.mean(spread) < 0.85 * everything


def test_tiny_and_odd_catalogues(catalogue):
    images = catalogue[0]
    for n, tags, artists in ((1, ((),), ("",)), (3, ((), ("a",), ()), ("", "x", "x"))):
        log = simulate_bookmarks(images[:n], tags, artists, seed=0, config=SMALL)
        assert len(log.label) <= 40 * n
        assert np.isfinite(log.true_probability).all()


def test_wrong_requests(catalogue):
    images, tags, artists = catalogue
    with pytest.raises(ValueError, match="199 tag lists"):
        simulate_bookmarks(images, tags[1:], artists, 0)
    with pytest.raises(ValueError, match="at least one drawing"):
        simulate_bookmarks([], [], [], 0)
    with pytest.raises(ValueError, match="0 < low <= high"):
        SimulationConfig(impressions=(5, 4))
    with pytest.raises(ValueError, match="at least 1"):
        SimulationConfig(users=0)
