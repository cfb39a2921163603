import dataclasses
import time
from collections import Counter

import numpy as np
import pytest
from logs import dataset_of, random_log

from umair_jax.data import interests, splits
from umair_jax.data.dataset import Interactions

ITEMS, TAGS, DIM = 25, 9, 5
DAY = 86_400


def world(seed):
    rng = np.random.default_rng([7, seed])
    item_tags = np.zeros((ITEMS + 1, 4), np.int32)
    for row in range(1, ITEMS + 1):
        n = rng.integers(0, 5)
        item_tags[row, :n] = rng.choice(np.arange(1, TAGS + 1), n, replace=False)
    vectors = rng.normal(size=(ITEMS + 1, DIM)).astype(np.float32)
    vectors[rng.random(ITEMS + 1) < 0.2] = 0
    vectors[0] = 0
    return item_tags, vectors


def window(log, k, count, days, visible):
    """The obvious way: item rows of the bookmarks that interaction k may know of, oldest first."""
    found = [
        (log.timestamp[j], log.item[j])
        for j in range(len(log))
        if log.user[j] == log.user[k]
        and log.label[j] == 1
        and visible[j]
        and log.timestamp[j] < log.timestamp[k]
        and (days is None or log.timestamp[j] >= log.timestamp[k] - round(days * DAY))
    ]
    return [item for _, item in sorted(found)][-count:]


def tags_by_hand(rows, item_tags):
    recent = [t for row in reversed(rows) for t in item_tags[row] if t]
    count = Counter(recent)
    best = sorted(count, key=lambda tag: (-count[tag], recent.index(tag)))[:4]
    return best + [0] * (4 - len(best))


def mean_by_hand(rows, vectors):
    present = [vectors[row].astype(np.float64) for row in rows if vectors[row].any()]
    return np.mean(present, axis=0) if present else np.zeros(DIM)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", splits.KINDS)
def test_features_equal_the_obvious_way(seed, kind):
    log = random_log(seed, rows=220)
    item_tags, vectors = world(seed)
    options = [
        {},
        {"long_max": 6, "short_max": 2},
        {"long_days": 40 / DAY, "short_days": 11 / DAY},
        {"long_max": 4, "short_max": 3, "short_days": 15 / DAY},
    ][seed % 4]
    part = splits.split(dataset_of(log), kind, (0.6, 0.2, 0.2), seed)
    histories = interests.build_histories(log, part, kind, **options)
    tags = interests.interest_tags(histories, item_tags)
    long, short = interests.interest_vectors(histories, vectors)
    visible = part == 0 if kind == "cold_item" else np.ones(len(log), bool)
    for k in range(len(log)):
        state = histories.state[k]
        begins = histories.long_start[state], histories.short_start[state]
        end = histories.state_end[state]
        assert histories.state_user[state] == log.user[k]
        assert end == histories.end[k]
        for w, (begin, name, vector) in enumerate(
            zip(begins, ("long", "short"), (long, short), strict=True)
        ):
            count = options.get(f"{name}_max", {"long": 50, "short": 8}[name])
            rows = window(log, k, count, options.get(f"{name}_days"), visible)
            assert histories.positives_item[begin:end].tolist() == rows
            assert tags[state, 4 * w : 4 * w + 4].tolist() == tags_by_hand(rows, item_tags)
            np.testing.assert_allclose(vector[state], mean_by_hand(rows, vectors), atol=1e-6)


def popularity_by_hand(log, k, visible, base):
    earlier = (log.item == log.item[k]) & (log.timestamp < log.timestamp[k]) & visible
    row = log.item[k]
    return (
        earlier.sum() + max(base[0][row], 0),
        (earlier & (log.label == 1)).sum() + max(base[1][row], 0),
    )


@pytest.mark.parametrize("kind", splits.KINDS)
def test_popularity_equals_the_obvious_way(kind):
    for seed in range(3):
        log = random_log(seed)
        rng = np.random.default_rng(seed)
        log = dataclasses.replace(log, sampled=(log.label == 0) & (rng.random(len(log)) < 0.3))
        base = rng.integers(-1, 50, (2, ITEMS + 1))
        part = splits.split(dataset_of(log), kind, (0.6, 0.2, 0.2), seed)
        views, marks = interests.popularity_as_of(log, (base[0], base[1]), part, kind)
        visible = ~log.sampled & (True if kind == "temporal" else part == 0)
        for k in range(len(log)):
            assert (views[k], marks[k]) == popularity_by_hand(log, k, visible, base)


def features(log, item_tags, vectors, part=None, kind="temporal", **options):
    """Everything that is known about every interaction, one row each."""
    histories = interests.build_histories(log, part, kind, **options)
    state = histories.state
    columns = [
        interests.interest_tags(histories, item_tags)[state],
        *(v[state] for v in interests.interest_vectors(histories, vectors)),
        *(c[:, None] for c in interests.popularity_as_of(log, None, part, kind)),
        (histories.end - histories.start)[:, None],
    ]
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_from_now_on_leaks(seed):
    log = random_log(seed)
    item_tags, vectors = world(seed)
    rng = np.random.default_rng(seed)
    options = {"short_days": 20 / DAY} if seed % 2 else {}
    before = features(log, item_tags, vectors, **options)
    for moment in np.quantile(log.timestamp, [0.1, 0.5, 0.9]).astype(np.int64):
        past, now = log.timestamp <= moment, log.timestamp >= moment
        # Labels from that second on are turned round; other people act; later events vanish.
        flipped = dataclasses.replace(log, label=np.where(now, 1 - log.label, log.label))
        np.testing.assert_array_equal(
            features(flipped, item_tags, vectors, **options)[past], before[past]
        )
        moved = np.where(now, rng.integers(1, ITEMS + 1, len(log)), log.item).astype(np.int32)
        other = dataclasses.replace(log, item=np.where(log.timestamp > moment, moved, log.item))
        np.testing.assert_array_equal(
            features(other, item_tags, vectors, **options)[past], before[past]
        )
        cut = log.take(np.flatnonzero(past))
        np.testing.assert_array_equal(features(cut, item_tags, vectors, **options), before[past])


@pytest.mark.parametrize("kind", ["cold_item", "cold_user", "leave_last_out"])
def test_held_out_labels_reach_no_training_row(kind):
    for seed in range(5):
        log = random_log(seed)
        item_tags, vectors = world(seed)
        part = splits.split(dataset_of(log), kind, (0.6, 0.2, 0.2), seed)
        held_out = part != splits.TRAIN
        flipped = dataclasses.replace(log, label=np.where(held_out, 1 - log.label, log.label))
        before = features(log, item_tags, vectors, part, kind)
        after = features(flipped, item_tags, vectors, part, kind)
        np.testing.assert_array_equal(before[~held_out], after[~held_out])
        if kind == "cold_item":  # and the counts of a cold item never show its own log
            np.testing.assert_array_equal(before, after)
            views, marks = interests.popularity_as_of(log, None, part, kind)
            assert not views[held_out].any()
            assert not marks[held_out].any()


def test_interactions_share_states():
    log = random_log(0, rows=2_000, users=5, seconds=10**6)
    histories = interests.build_histories(log)
    assert len(histories.state_user) <= len(histories.positives_item) + 5
    assert histories.state.max() + 1 == len(histories.state_user)


def test_vocabulary_puts_frequent_tags_first():
    vocabulary = interests.tag_vocabulary([(), ("b", "a"), (), ("c", "b"), ("a",)])
    assert vocabulary.tags == ("", "a", "b", "c")
    assert vocabulary.item_tags.tolist() == [[0, 0], [2, 1], [0, 0], [3, 2], [1, 0]]


def test_an_empty_log_and_a_log_without_bookmarks():
    empty = random_log(0, rows=0)
    histories = interests.build_histories(empty)
    item_tags, vectors = world(0)
    assert interests.interest_tags(histories, item_tags).shape == (0, 8)
    assert interests.interest_vectors(histories, vectors)[0].shape == (0, DIM)
    log = random_log(0)
    silent = dataclasses.replace(log, label=np.zeros_like(log.label))
    assert not features(silent, item_tags, vectors)[:, :18].any()


def test_wrong_requests():
    log = random_log(0)
    with pytest.raises(ValueError, match="got no split"):
        interests.build_histories(log, kind="cold_item")
    with pytest.raises(ValueError, match="long_max 0"):
        interests.build_histories(log, long_max=0)
    with pytest.raises(ValueError, match="got no split"):
        interests.popularity_as_of(log, kind="cold_user")
    late = dataclasses.replace(log, timestamp=log.timestamp * np.int64(2**42) // 1_000)
    with pytest.raises(ValueError, match="unix seconds"):
        interests.build_histories(
            dataclasses.replace(late, user=(log.user + 2**29).astype(np.int32))
        )


@pytest.mark.slow
def test_a_million_interactions_take_seconds():
    rng = np.random.default_rng(0)
    n, users, items = 1_000_000, 20_000, 50_000
    log = Interactions(
        rng.integers(1, users + 1, n).astype(np.int32),
        rng.integers(1, items + 1, n).astype(np.int32),
        rng.integers(0, 10**7, n),
        (rng.random(n) < 0.33).astype(np.int8),
    ).ordered()
    item_tags = rng.integers(0, 1_700, (items + 1, 10)).astype(np.int32)
    item_tags[:, 6:] *= rng.random((items + 1, 4)) < 0.3
    began = time.monotonic()
    histories = interests.build_histories(log)
    interests.popularity_as_of(log)
    built = time.monotonic()
    interests.interest_tags(histories, item_tags)
    tagged = time.monotonic()
    print(f"histories {built - began:.1f} s, tags {tagged - built:.1f} s")
    assert tagged - began < 60
