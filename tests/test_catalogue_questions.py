import dataclasses

import numpy as np
import pytest
import small_world

from umair_jax.data import catalogue_questions, ranking
from umair_jax.data.catalogue_questions import catalogue_at
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.splits import TRAIN


def made_up(kind):
    made = small_world.dataset(rows=200, seconds=90)
    log = made.interactions
    # Some drawings appear while the log runs.
    published = made.items.published.copy()
    published[[2, 5, 9]] = np.percentile(log.timestamp, [50, 80, 95]).astype(np.int64)
    made = dataclasses.replace(made, items=dataclasses.replace(made.items, published=published))
    config = RankingConfig(split=kind, fractions=small_world.FRACTIONS)
    data = ranking.build(made, small_world.bank(), small_world.SCHEMA.schema(), config)
    return made, data, config


@pytest.mark.parametrize("kind", ["temporal", "cold_item", "leave_last_out"])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_questions_equal_the_obvious_way(kind, part):
    dataset, data, config = made_up(kind)
    log, items = dataset.interactions, len(dataset.items)
    asked = catalogue_questions.build(dataset, data, config, part)

    def before(k):
        return {
            int(log.item[j])
            for j in range(len(log))
            if log.user[j] == log.user[k] and log.label[j] and log.timestamp[j] < log.timestamp[k]
        }

    rows = data.rows(part)
    marked = [k for k in rows if log.label[k] == 1]
    kept = [k for k in marked if log.item[k] not in before(k)]
    assert (len(asked), asked.repeated) == (len(kept), len(marked) - len(kept))
    assert asked.moment == min(log.timestamp[k] for k in rows)
    np.testing.assert_array_equal(asked.user, log.user[kept])
    np.testing.assert_array_equal(asked.item, log.item[kept])
    trained = set(log.item[data.split == TRAIN].tolist())
    np.testing.assert_array_equal(asked.cold, [log.item[k] not in trained for k in kept])

    allowed = np.concatenate([asked.allowed(slice(0, 3)), asked.allowed(slice(3, len(asked)))])
    for row, k in zip(allowed, kept, strict=True):
        expected = [
            i == log.item[k]
            or (dataset.items.published[i] <= log.timestamp[k] and i not in before(k))
            for i in range(1, items + 1)
        ]
        np.testing.assert_array_equal(row, expected)

    counts = np.maximum(dataset.items.total_bookmarks, 0)[1:]
    for j in range(len(log)):
        known = kind == "temporal" or data.split[j] == TRAIN
        if log.label[j] and log.timestamp[j] < asked.moment and known:
            counts[log.item[j] - 1] += 1
    np.testing.assert_array_equal(asked.popularity, counts)


@pytest.mark.parametrize("kind", ["temporal", "cold_item"])
def test_recent_counts_equal_the_obvious_way(kind, monkeypatch):
    monkeypatch.setattr(catalogue_questions, "_DAY", 2)  # the made-up log is of some seconds
    dataset, data, config = made_up(kind)
    log = dataset.interactions
    asked = catalogue_questions.build(dataset, data, config, "test")
    found = np.concatenate([asked.recent(slice(0, 4)), asked.recent(slice(4, len(asked)))])
    assert found.any()
    for row, moment in zip(found, asked.timestamp, strict=True):
        counts = np.zeros(len(dataset.items) + 1, int)
        for j in range(len(log)):
            known = kind == "temporal" or data.split[j] == TRAIN
            if log.label[j] and known and moment - 14 <= log.timestamp[j] < moment:
                counts[log.item[j]] += 1
        np.testing.assert_array_equal(row, counts[1:])


def test_columns_are_the_bookmarks_then_the_catalogue_as_of_the_moment():
    dataset, data, config = made_up("temporal")
    asked = catalogue_questions.build(dataset, data, config, "test")
    catalogue = catalogue_at(dataset, data, config, asked.moment)
    np.testing.assert_array_equal(catalogue["item"], np.arange(1, len(dataset.items) + 1))
    assert set(asked.columns) == set(data.columns)
    for name, column in asked.columns.items():
        assert column.dtype == data.columns[name].dtype
        np.testing.assert_array_equal(column[len(asked) :], catalogue[name])
    # Items are as they were when the part began: as those that were shown in that second.
    first = data.rows("test")[0]
    shown = catalogue["item"] == data.columns["item"][first]
    for field in ranking.counted(data.schema):
        assert catalogue[field.name][shown] == data.columns[field.name][first]


def test_a_part_without_bookmarks_is_refused():
    dataset, data, config = made_up("temporal")
    label = np.where(data.split == TRAIN, dataset.interactions.label, 0).astype(np.int8)
    log = dataclasses.replace(dataset.interactions, label=label)
    nobody = dataclasses.replace(dataset, interactions=log)
    with pytest.raises(ValueError, match=r"valid: got .* interactions without a bookmark"):
        catalogue_questions.build(nobody, data, config, "valid")
