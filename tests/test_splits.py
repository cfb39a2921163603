import numpy as np
import pytest
from logs import dataset_of, random_log

from umair_jax.data import splits
from umair_jax.data.dataset import Interactions


def test_temporal_never_divides_a_second():
    for seed in range(5):
        log = random_log(seed, seconds=30)
        part = splits.split(dataset_of(log), "temporal")
        assert part.dtype == np.int8
        assert (np.diff(part) >= 0).all()
        for second in np.unique(log.timestamp):
            assert len(set(part[log.timestamp == second])) == 1


def test_temporal_shares():
    log = random_log(0, rows=5_000, seconds=10**6)
    part = splits.split(dataset_of(log), "temporal", (0.7, 0.2, 0.1))
    np.testing.assert_allclose(np.bincount(part) / 5_000, [0.7, 0.2, 0.1], atol=0.001)
    assert splits.counts(part) == {"train": 3_500, "valid": 1_000, "test": 500}


def leave_last_out_by_hand(log):
    part = np.zeros(len(log), np.int8)
    for user in set(log.user):
        mine = log.user == user
        seconds = sorted(set(log.timestamp[mine & (log.label == 1)]))
        if len(seconds) >= 3:
            part[mine & (log.timestamp > seconds[-3])] = 1
            part[mine & (log.timestamp > seconds[-2])] = 2
    return part


def test_leave_last_out_equals_the_obvious_way():
    for seed in range(8):
        log = random_log(seed, rows=120 + 20 * seed)
        got = splits.split(dataset_of(log), "leave_last_out")
        np.testing.assert_array_equal(got, leave_last_out_by_hand(log))


@pytest.mark.parametrize("kind", ["cold_item", "cold_user"])
def test_cold_splits_hold_out_whole_items_or_users(kind):
    log = random_log(1)
    data = dataset_of(log)
    part = splits.split(data, kind, (0.6, 0.2, 0.2), seed=3)
    owner = log.item if kind == "cold_item" else log.user
    groups = [set(owner[part == k]) for k in range(3)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    total = sum(map(len, groups))
    assert [len(g) for g in groups[1:]] == [round(0.2 * total)] * 2
    np.testing.assert_array_equal(part, splits.split(data, kind, (0.6, 0.2, 0.2), seed=3))
    assert (part != splits.split(data, kind, (0.6, 0.2, 0.2), seed=4)).any()


def test_wrong_requests():
    data = dataset_of(random_log(0))
    with pytest.raises(ValueError, match="expected one of temporal"):
        splits.split(data, "random")
    with pytest.raises(ValueError, match="sum 1"):
        splits.split(data, "temporal", (0.8, 0.1, 0.2))
    one = Interactions(
        np.ones(1, np.int32), np.ones(1, np.int32), np.ones(1, np.int64), np.ones(1, np.int8)
    )
    with pytest.raises(ValueError, match="empty; expected some in each"):
        splits.split(dataset_of(one), "temporal")
