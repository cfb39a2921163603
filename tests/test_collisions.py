from types import SimpleNamespace

import numpy as np
import pytest

from umair_jax.data import hashing
from umair_jax.data.collisions import Collisions, collisions
from umair_jax.data.schema import Field, Kind, Schema, Side

USERS = SimpleNamespace(user_id=("", "u"), username=("", ""))


def schema(size):
    return Schema((Field("illust_id", Kind.HASH, Side.ITEM, size=size, column="illust_id"),))


def catalogue(n):
    return SimpleNamespace(illust_id=("", *(str(k) for k in range(n))))


@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_counts_equal_the_obvious_way(size):
    (found,) = collisions(schema(size), catalogue(60), USERS)
    rows = [hashing.bucket(str(k), size) for k in range(60)]
    assert found.distinct == 60
    assert found.rows_used == len(set(rows))
    assert found.colliding == sum(rows.count(row) > 1 for row in rows)
    assert found.share == found.colliding / 60


def test_the_hash_is_as_good_as_an_ideal_one():
    for size in (1_000, 5_000):
        (found,) = collisions(schema(size), catalogue(3_000), USERS)
        assert abs(found.colliding - found.expected) < 4 * np.sqrt(3_000)


def test_nothing_collides_with_nothing():
    (found,) = collisions(schema(5), catalogue(0), USERS)
    assert (found.distinct, found.colliding, found.expected, found.share) == (0, 0, 0, 0)
    (found,) = collisions(schema(5), catalogue(1), USERS)
    assert (found.colliding, found.expected) == (0, 0)
    assert Collisions("t", (), 5, 0, 0, 0, 0.0).share == 0
