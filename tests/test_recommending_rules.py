"""Who asks, what may be shown, and how a list is chosen."""

import dataclasses

import numpy as np
import pytest
import small_world

from umair_jax.recommending import choice, person, reasons
from umair_jax.recommending.choice import ChoiceConfig
from umair_jax.recommending.filters import Filters, Rules
from umair_jax.recommending.vectors import UnitVectors, unit

SEEDS = (0, 1, 2)


# Who asks ---------------------------------------------------------------------------------------


def test_somebody_of_the_log_is_known_by_bookmarks_and_by_what_was_shown():
    world = small_world.dataset()
    log, moment = world.interactions, 30
    for user in range(1, small_world.USERS + 1):
        found = person.of_log(world, f"u{user}", moment)
        mine = [k for k in range(len(log)) if log.user[k] == user and log.timestamp[k] < moment]
        assert (found.name, found.user) == (f"u{user}", user)
        assert found.liked.tolist() == [log.item[k] for k in mine if log.label[k] == 1]
        assert set(found.shown) == {log.item[k] for k in mine if not log.sampled[k]}


def test_likes_are_bookmarks_just_before_the_moment_and_count_once():
    found = person.of_likes(small_world.dataset(), ["i3", "i5", "i3"], 1000)
    assert found.user == 0
    assert found.liked.tolist() == [5, 3]
    assert found.bookmarks.timestamp.tolist() == [998, 999]
    assert found.liked.dtype == np.int32


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda d: person.of_log(d, "u11", 9), "user: got 'u11'; expected one of the 8 ids; the n"),
        (lambda d: person.of_log(d, "", 9), "user: got ''; expected one of the 8 ids; the first"),
        (lambda d: person.of_likes(d, ["i1", "j77"], 9), "drawing: got 'j77'; expected one of the"),
    ],
)
def test_unknown_ids_are_named_with_a_known_one(call, said):
    with pytest.raises(ValueError, match="got") as error:
        call(small_world.dataset())
    assert said in str(error.value)


# What may be shown ------------------------------------------------------------------------------


def everything(world, filters, liked=(), shown=(), moment=10**6):
    who = dataclasses.replace(
        person.of_rows(np.array(liked, np.int32), 10), shown=np.array(shown, np.int32)
    )
    return set(np.flatnonzero(Rules(world).allowed(who, filters, moment)).tolist())


def test_filters_leave_out_what_they_name_and_nothing_else():
    world = small_world.dataset()
    items, rows = world.items, set(range(1, small_world.ITEMS + 1))
    assert everything(world, Filters()) == rows
    assert everything(world, Filters(), liked=[2, 5], shown=[2, 5, 6]) == rows - {2, 5}
    assert everything(world, Filters(shown=False), [2, 5], [2, 5, 6]) == rows - {2, 5, 6}
    assert everything(world, Filters(bookmarked=True), [2, 5]) == rows
    tagged = {k for k in rows if {"tag 1", "tag 4"} & set(items.tags[k])}
    assert 0 < len(tagged) < len(rows)
    assert everything(world, Filters(block_tags=(" TAG 1", "tag 4"))) == rows - tagged
    rated = {k for k in rows if 0 <= items.sanity_level[k] <= 2}
    assert 0 < len(rated) < len(rows)
    assert everything(world, Filters(max_sanity_level=2)) == rated
    late = dataclasses.replace(items, published=np.arange(small_world.ITEMS + 1))
    out = dataclasses.replace(world, items=late)
    assert everything(out, Filters(), moment=4) == {1, 2, 3, 4}


def test_asking_does_not_change_the_catalogue():
    world = small_world.dataset()
    before = world.items.published.copy()
    everything(world, Filters(max_sanity_level=2), liked=[3])
    np.testing.assert_array_equal(world.items.published, before)


def test_tags_that_no_drawing_has_are_found():
    rules = Rules(small_world.dataset())
    assert rules.unknown(Filters(block_tags=("Tag 1", "tga 1"))) == ("tga 1",)
    with pytest.raises(ValueError, match=r"block_tags: got \(' ',\); expected no empty tag"):
        Filters(block_tags=(" ",))


# The list ---------------------------------------------------------------------------------------


def unlike(place, others):
    return np.zeros(len(others))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_best_come_first_and_equal_ones_in_their_order(seed):
    score = np.random.default_rng(seed).integers(0, 5, 30).astype(float)
    found = choice.choose(score, [""] * 30, unlike, ChoiceConfig(k=12))
    expected = sorted(range(30), key=lambda k: -score[k])[:12]
    assert found.tolist() == expected


@pytest.mark.parametrize("diversity", [0.0, 0.4])
def test_no_artist_has_more_than_the_number_allowed(diversity):
    score = np.linspace(1, 0, 20)
    artists = ["a"] * 8 + ["b"] * 4 + [""] * 8
    found = choice.choose(score, artists, unlike, ChoiceConfig(6, 2, diversity))
    assert sorted(found.tolist()) == [0, 1, 8, 9, 12, 13]
    # Nobody knows whose the others are.
    found = choice.choose(score, artists, unlike, ChoiceConfig(20, 1, diversity))
    assert sorted(found.tolist()) == [0, 8, *range(12, 20)]


def test_marginal_relevance_as_computed_by_hand():
    """Three alike and good, one unlike and fair, one unlike and bad."""
    score = np.array([1.0, 0.9, 0.8, 0.5, 0.0])
    likeness = np.eye(5)
    likeness[:3, :3] = 1

    def similar(place, others):
        return likeness[place, others]

    def chosen(diversity, k=3):
        config = ChoiceConfig(k, 0, diversity)
        return choice.choose(score, [""] * 5, similar, config).tolist()

    assert chosen(0.0) == [0, 1, 2]
    # After 0: 0.5 * 0.9 - 0.5 * 1 = -0.05 for 1, 0.5 * 0.5 - 0 = 0.25 for 3, 0 for 4.
    assert chosen(0.5) == [0, 3, 4]
    # After 0: 0.8 * 0.9 - 0.2 = 0.52 for 1 against 0.8 * 0.5 = 0.4 for 3.
    assert chosen(0.2) == [0, 1, 2]
    assert sorted(chosen(1.0, k=9)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("diversity", [0.0, 0.7])
def test_few_or_no_candidates_give_a_short_list(diversity):
    config = ChoiceConfig(5, 1, diversity)
    assert choice.choose(np.zeros(0), [], unlike, config).tolist() == []
    assert choice.choose(np.ones(1), ["a"], unlike, config).tolist() == [0]


@pytest.mark.parametrize("wrong", [{"k": 0}, {"per_artist": -1}, {"diversity": 1.1}])
def test_choices_out_of_range_are_errors(wrong):
    with pytest.raises(ValueError, match="expected k of 1 or more"):
        ChoiceConfig(**wrong)


# Likeness ---------------------------------------------------------------------------------------


def test_nearest_leaves_out_what_is_not_allowed_or_has_no_vector():
    bank = small_world.bank()
    vectors = UnitVectors(bank)
    allowed = np.ones(small_world.ITEMS + 1, bool)
    allowed[[0, 4]] = False
    rows, cosine = vectors.nearest("style", 3 * bank.style[4], allowed, 100)
    assert set(rows.tolist()) == set(np.flatnonzero(bank.has_image).tolist()) - {4}
    whole = unit(bank.style) @ unit(bank.style[4])
    np.testing.assert_allclose(cosine, whole[rows], rtol=1e-6)
    assert (np.diff(cosine) <= 0).all()
    with pytest.raises(ValueError, match="by: got 'colour'; expected one of content, style, text"):
        vectors.nearest("colour", bank.style[4], allowed, 3)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_nearest_liked_drawing_as_by_brute_force(weighted):
    bank = small_world.bank()
    vectors, rng = UnitVectors(bank), np.random.default_rng(0)
    items, liked = np.array([1, 4, 9, 12]), np.array([2, 3, 8])
    weights = {"meta": rng.random(4)}
    if weighted:
        weights |= {name: rng.random(4) for name in vectors.by}
    found = reasons.nearest_liked(vectors, items, liked, weights)
    for k, item in enumerate(items):
        summands = {
            (row, name): weights[name][k] * cosine if weighted else cosine
            for row in liked.tolist()
            for name in vectors.by
            for cosine in [float(vectors.by[name][item] @ vectors.by[name][row])]
        }
        total = {row: sum(summands[row, name] for name in vectors.by) for row in liked.tolist()}
        best = max(total, key=total.__getitem__)
        if total[best] == 0:
            assert found[k] is None
            continue
        by = max(vectors.by, key=lambda name: summands[best, name])
        assert (found[k].liked, found[k].by) == (best, by)
        assert found[k].cosine == pytest.approx(
            float(vectors.by[by][item] @ vectors.by[by][best]), abs=1e-6
        )


def test_nothing_liked_gives_no_reason():
    vectors = UnitVectors(small_world.bank())
    nobody = np.zeros(0, np.int32)
    assert reasons.nearest_liked(vectors, np.array([1, 2]), nobody, {}) == [None, None]
