import dataclasses
from collections import Counter

import numpy as np
import pytest
from logs import dataset_of, random_log
from sklearn.metrics import roc_auc_score

from umair_jax.data import interests
from umair_jax.data.dataset import Interactions
from umair_jax.data.negatives import sample_negatives


def positives(seed, **sizes):
    log = random_log(seed, **sizes)
    return log.take(np.flatnonzero(log.label == 1))


@pytest.mark.parametrize("strategy", ["uniform", "popularity"])
@pytest.mark.parametrize("seed", range(3))
def test_negatives_are_not_yet_liked_existing_and_not_repeated(strategy, seed):
    log = positives(seed, rows=200, users=20, items=60, seconds=1_000)
    published = np.random.default_rng(seed).integers(999_000, 1_000_400, 61)
    published[[0, 3, 4]] = -1
    published[np.unique(log.item)] = -1
    items = dataset_of(log, 20, 60, published).items
    full = sample_negatives(log, items, strategy, 3, seed)
    assert full.sampled is not None
    liked = {}
    for user, item, second in zip(log.user, log.item, log.timestamp, strict=True):
        liked[user, item] = min(second, liked.get((user, item), second))
    new = full.take(np.flatnonzero(full.sampled))
    assert not new.label.any()
    after = [
        liked[user, item] - second
        for user, item, second in zip(new.user, new.item, new.timestamp, strict=True)
        if (user, item) in liked
    ]
    # Some are bookmarked later, none at that second or before.
    assert after
    assert min(after) > 0
    assert (published[new.item] <= new.timestamp).all()
    events = list(zip(full.user.tolist(), full.item.tolist(), full.timestamp.tolist(), strict=True))
    bookmarks = set(zip(log.user.tolist(), log.item.tolist(), log.timestamp.tolist(), strict=True))
    assert len(set(events)) - len(bookmarks) == len(new)

    # Each bookmark gets its three, at its own second.
    def moments(part):
        return Counter(zip(part.user.tolist(), part.timestamp.tolist(), strict=True))

    assert moments(new) == {key: 3 * n for key, n in moments(log).items()}
    order = np.lexsort((full.item, full.user, full.timestamp))
    np.testing.assert_array_equal(order, np.arange(len(full)))
    again = sample_negatives(log, items, strategy, 3, seed)
    np.testing.assert_array_equal(full.item, again.item)


def test_popular_items_come_more_often_but_only_after_they_became_popular():
    rng = np.random.default_rng(0)
    log = positives(0, rows=8_000, users=3_000, items=300, seconds=10**6)
    hit = rng.random(len(log)) < 0.3
    log = dataclasses.replace(log, item=np.where(hit, 7, log.item).astype(np.int32))
    items = dataset_of(log, 3_000, 300).items
    shares = {}
    for strategy in ("uniform", "popularity"):
        new = sample_negatives(log, items, strategy, 2, 0)
        shares[strategy] = (new.item[new.sampled] == 7).mean()
    assert shares["uniform"] < 0.01
    assert shares["popularity"] > 0.1
    late = np.where((log.item == 7) & (log.timestamp < 1_500_000), 8, log.item).astype(np.int32)
    new = sample_negatives(dataclasses.replace(log, item=late), items, "popularity", 2, 0)
    early = new.sampled & (new.timestamp < 1_500_000)
    assert (new.item[early] == 7).mean() < 0.01


def test_somebody_who_has_nearly_everything_gets_what_is_left():
    log = positives(0, rows=600, users=1, items=25)
    log = log.take(np.flatnonzero(log.item != 5))
    full = sample_negatives(log, dataset_of(log, 1).items, "uniform", 4, 0)
    for second in np.unique(log.timestamp):
        left = set(range(1, 26)) - set(log.item[log.timestamp <= second].tolist())
        drawn = full.item[full.sampled & (full.timestamp == second)].tolist()
        assert set(drawn) <= left
        wanted = 4 * int((log.timestamp == second).sum())
        assert len(drawn) == len(set(drawn)) == min(wanted, len(left))


@pytest.mark.parametrize("strategy", ["uniform", "popularity"])
def test_training_negatives_do_not_tell_who_likes_what_later(strategy):
    """Scored by how rarely the same user was given the same item as a negative before."""
    scores = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        users, items, rows = 100, 200, 4_000
        pairs = np.sort(rng.choice(users * items, rows, replace=False))
        log = Interactions(
            user=(pairs // items + 1).astype(np.int32),
            item=(pairs % items + 1).astype(np.int32),
            timestamp=rng.integers(1_000_000, 2_000_000, rows),
            label=np.ones(rows, np.int8),
        ).ordered()
        full = sample_negatives(log, dataset_of(log, users, items).items, strategy, 4, seed)
        pair = full.user.astype(np.int64) * (items + 1) + full.item
        train = full.timestamp < 1_800_000
        given = np.bincount(pair[train & (full.label == 0)], minlength=pair.max() + 1)
        scores.append(roc_auc_score(full.label[~train], -given[pair[~train]]))
    # 0.78 where items that are bookmarked later are spared.
    assert max(scores) < 0.55, scores


def test_bookmarks_before_the_first_item_get_none():
    log = positives(0, rows=300, users=20, items=60)
    published = np.full(61, log.timestamp.max())
    full = sample_negatives(log, dataset_of(log, 20, 60, published).items, "uniform", 4, 0)
    assert set(full.timestamp[full.sampled]) <= {log.timestamp.max()}


def test_sampled_rows_are_not_views():
    log = positives(0, rows=200, users=20, items=60)
    full = sample_negatives(log, dataset_of(log, 20, 60).items, "uniform", 4, 0)
    views, marks = interests.popularity_as_of(full)
    np.testing.assert_array_equal(views, marks)


def test_wrong_requests():
    log = positives(0)
    items = dataset_of(log).items
    with pytest.raises(ValueError, match="expected uniform or popularity"):
        sample_negatives(log, items, "random")
    with pytest.raises(ValueError, match="expected 1 or more"):
        sample_negatives(log, items, "uniform", 0)
    known = dataclasses.replace(log, true_probability=np.ones(len(log), np.float32))
    with pytest.raises(ValueError, match="simulated"):
        sample_negatives(known, items, "uniform")
