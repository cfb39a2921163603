"""Negatives beside ratings, and that no example knows anything from its second on."""

import dataclasses

import numpy as np
import pytest
import small_world
from films import prepared, site, write
from small_world import keep_split, readings

from configs import movielens as config_file
from umair_jax import settings
from umair_jax.data import ranking, splits
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.schema_config import SchemaConfig


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The made-up site, prepared; its report."""
    here = tmp_path_factory.mktemp("site")
    return prepared(write(here / "films", *site()), here / "data")


# Negatives --------------------------------------------------------------------------------------


def test_negatives_are_four_a_rating_and_popular_films_not_seen_by_then(world):
    data, report = world
    log = data.interactions
    assert report.counts.get("no_negative_left", 0) == 0
    new, old = (log.take(np.flatnonzero(log.sampled == kind)) for kind in (True, False))
    assert len(new) == 4 * len(old) == 4 * 48
    assert not new.label.any()
    assert old.label.all()
    fresh = 0
    for user, item, second in zip(new.user, new.item, new.timestamp, strict=True):
        earlier = set(old.item[old.timestamp < second].tolist())
        taken = new.item[(new.user == user) & (new.timestamp == second)].tolist()
        own = set(old.item[(old.user == user) & (old.timestamp <= second)].tolist())
        assert item not in own
        # Where the popular ones do not go round, any film that is out has to do.
        assert item in earlier or earlier - own <= set(taken)
        assert data.items.published[item] <= second
        fresh += item not in earlier
    assert fresh < len(new) / 3


def test_auto_is_popularity_and_the_result_is_the_same_again(world, tmp_path):
    data, _ = world
    folder = write(tmp_path / "films", *site())
    for name, options in (("auto", {}), ("popularity", {"negatives": "popularity"})):
        again, _ = prepared(folder, tmp_path / name, **options)
        assert again.fingerprint == data.fingerprint
    uniform, _ = prepared(folder, tmp_path / "uniform", negatives="uniform")
    assert uniform.fingerprint != data.fingerprint


# Nothing leaks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", config_file.FRACTIONS)
def test_no_example_knows_what_happens_from_its_second_on(world, kind, monkeypatch):
    """With the fields of configs/movielens.py, and with the counts that it leaves out."""
    data, _ = world
    config = config_file.get_config(kind).to_dict()
    options = settings.build(SchemaConfig, config["schema"], "config.schema")
    fractions = config["features"]["fractions"]
    vectors = small_world.bank(items=len(data.items))
    log = data.interactions
    part = splits.split(data, kind, fractions, 0)
    keep_split(monkeypatch, part)
    rng = np.random.default_rng(2)
    users, items = len(data.users) + 1, len(data.items) + 1
    for drop in (options.drop, ()):
        schema = dataclasses.replace(options, drop=drop).schema()
        features = RankingConfig(split=kind, fractions=fractions)
        before = readings(ranking.build(data, vectors, schema, features))
        for k in range(0, len(log), 9):
            now = log.timestamp >= log.timestamp[k]
            others = now & (np.arange(len(log)) != k)
            other = dataclasses.replace(
                log,
                label=np.where(now, 1 - log.label, log.label).astype(np.int8),
                user=np.where(others, rng.integers(1, users, len(log)), log.user).astype(np.int32),
                item=np.where(others, rng.integers(1, items, len(log)), log.item).astype(np.int32),
                timestamp=log.timestamp + others * rng.integers(0, 9),
                sampled=np.where(now, rng.random(len(log)) < 0.5, log.sampled),
            )
            changed = dataclasses.replace(data, interactions=other)
            after = readings(ranking.build(changed, vectors, schema, features))
            np.testing.assert_array_equal(after[k], before[k])
