"""What is recommended to whom, and from what knowledge."""

import dataclasses

import numpy as np
import pytest
import small_world

from umair_jax.data import ranking
from umair_jax.data.batches import BatchSource
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.splits import KINDS
from umair_jax.reporting import people
from umair_jax.reporting.people import BOOKMARKED, PASSED, UNSEEN


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_be_shown_is_known_as_in_the_log(kind):
    """Asking about an example of the log at its own time gives its own columns."""
    world, config = small_world.dataset(rows=160), RankingConfig(kind, small_world.FRACTIONS)
    data = small_world.build(world, split=kind)
    log = world.interactions
    for row in data.rows("test")[::3]:
        found = ranking.columns_at(
            world, data, config, user=int(log.user[row]), state=int(data.columns["state"][row]),
            item=log.item[[row, 0]], moment=int(log.timestamp[row]),
        )  # fmt: skip
        assert list(found) == list(data.columns)
        for name, column in data.columns.items():
            assert found[name].dtype == column.dtype, name
            assert len(found[name]) == 2
            assert found[name][0] == (0 if name == "label" else column[row]), name


@pytest.mark.parametrize("kind", KINDS)
def test_recommendations_equal_the_obvious_way(kind):
    world, config = small_world.dataset(rows=160), RankingConfig(kind, small_world.FRACTIONS)
    items = dataclasses.replace(
        world.items, published=np.array([-1, *np.arange(small_world.ITEMS) * 3 - 1])
    )
    world = dataclasses.replace(world, items=items)
    data, log = small_world.build(world, split=kind), world.interactions
    score = np.random.default_rng(0).random(small_world.ITEMS + 1).round(1).astype(np.float32)
    asked = []

    def predict(source):
        asked.append(source)
        item = source.column("item")
        return {"probability": score[item], "weights": np.stack([score[item], 1 - score[item]], 1)}

    rows = data.rows("test")
    test = predict(ranking_source(data, rows))
    for user in np.unique(log.user[rows]):
        person = people.recommend(world, data, config, int(user), predict, 4, test)
        mine = [k for k in rows if log.user[k] == user]
        moment = log.timestamp[mine[0]]
        known, before = set(), []
        for k in range(len(log)):
            if log.user[k] == user and log.label[k] == 1:
                if log.timestamp[k] < moment:
                    before.append((log.timestamp[k], k))
                if log.timestamp[k] < moment or k not in rows:
                    known.add(int(log.item[k]))
        assert person.before == len(before)
        assert person.recent == tuple(log.item[k] for _, k in sorted(before)[::-1][: people.SHOWN])
        open_to = [
            k for k in range(1, small_world.ITEMS + 1)
            if k not in known and items.published[k] <= moment
        ]  # fmt: skip
        assert person.candidates == len(open_to)
        if open_to:
            np.testing.assert_array_equal(asked[-1].column("item"), open_to)
            assert (asked[-1].column("state") == data.columns["state"][mine[0]]).all()
        best = sorted(open_to, key=lambda k: -score[k])[: people.SHOWN]
        assert [pick.item for pick in person.recommended] == best
        for pick in person.recommended:
            assert pick.probability == score[pick.item]
            assert pick.weights == (score[pick.item], 1 - score[pick.item])
            seen = [k for k in mine if log.item[k] == pick.item]
            shown = [k for k in seen if not log.sampled[k] and log.label[k] == 0]
            marked = [k for k in seen if log.label[k] == 1]
            assert pick.outcome == (BOOKMARKED if marked else PASSED if shown else UNSEEN)
        assert person.test_examples == len(mine)
        assert person.test_bookmarks == log.label[mine].sum()
        assert person.mean_weights[0] == pytest.approx(score[log.item[mine]].mean())
        assert person.true_mixture == tuple(world.users.true_mixture[user])


def ranking_source(data, rows):
    return BatchSource(data.columns, 8, shuffle=False, index=rows)


def test_people_are_drawn_among_those_with_enough_examples():
    data = small_world.build(small_world.dataset(rows=160))
    examples = np.bincount(data.columns["user"][data.split == 2])
    enough = np.flatnonzero(examples >= people.ENOUGH)
    if not len(enough):
        enough = np.flatnonzero(examples)
    np.testing.assert_array_equal(people.choose(data, 1000), enough)
    drawn = people.choose(data, 2)
    np.testing.assert_array_equal(drawn, people.choose(data, 2))
    assert len(set(drawn)) == 2
    assert set(drawn) <= set(enough)
    with pytest.raises(ValueError, match="users: got 0"):
        people.choose(data, 0)
