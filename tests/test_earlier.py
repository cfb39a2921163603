import numpy as np
import pytest

from umair_jax.data.earlier import Clock, count_below, first_of


def test_keys_sort_by_owner_then_time():
    rng = np.random.default_rng(0)
    owner, time = rng.integers(0, 9, 400), 1_000 + rng.integers(0, 50, 400)
    key = Clock.of(owner, time).key(owner, time)
    order = np.lexsort((time, owner))
    assert (np.diff(key[order]) >= 0).all()
    pairs = {(o, t): k for o, t, k in zip(owner, time, key, strict=True)}
    assert len(set(pairs.values())) == len(pairs)


def test_going_back_stops_at_the_owner():
    owner, time = np.array([1, 2, 2]), np.array([100, 100, 160])
    clock = Clock.of(owner, time)
    key = clock.key(owner, time)
    back = clock.key(owner, time, back=10**6)
    assert (back <= key).all()
    assert back[1] > key[0]  # not among the events of owner 1
    assert clock.key(owner, time, back=60)[2] == key[1]


def test_counting_equals_the_obvious_way():
    rng = np.random.default_rng(1)
    keys, wanted = np.sort(rng.integers(0, 40, 100)), rng.integers(-3, 44, 60)
    np.testing.assert_array_equal(count_below(keys, wanted), [(keys < w).sum() for w in wanted])
    assert count_below(np.zeros(0, np.int64), wanted).tolist() == [0] * 60
    assert count_below(keys, np.zeros(0, np.int64)).tolist() == []


def test_first_of():
    owners = np.array([1, 1, 3, 3, 3])
    assert first_of(owners, np.array([0, 1, 2, 3, 4, 9])).tolist() == [0, 0, 2, 2, 5, 5]
    assert first_of(np.zeros(0, np.int64), np.array([0, 5])).tolist() == [0, 0]


def test_milliseconds_for_many_owners_are_refused():
    assert Clock.of(np.zeros(0, np.int64), np.zeros(0, np.int64)).span == 1
    owner = np.array([1, 2**31])
    Clock.of(owner, np.array([0, 2_000_000_000]))
    with pytest.raises(ValueError, match="divide milliseconds by 1,000"):
        Clock.of(owner, np.array([0, 2**34]))
