"""Nearest neighbours, and what is asked of them, against slow or exact counterparts."""

import itertools

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from umair_jax.probes import neighbours
from umair_jax.probes.neighbours import Question, ask, half_width, nearest, unit


def random_vectors(count, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def grid(concepts=20, styles=6):
    """Labels of pictures of every concept in every style."""
    concept, style = np.divmod(np.arange(concepts * styles), styles)
    return concept, style


def questions(concept, style):
    return (
        Question("style", style, concept, concept, "share"),
        Question("concept", concept, style, concept, "any"),
    )


# Neighbours -------------------------------------------------------------------------------------


@pytest.mark.parity
def test_neighbours_are_those_of_scikit_learn():
    vectors, queries = random_vectors(150), random_vectors(40, seed=1)
    rng = np.random.default_rng(2)
    group, query_group = rng.integers(0, 5, 150), rng.integers(0, 5, 40)
    found = nearest(queries, vectors, query_group, group, k=7)
    everything = NearestNeighbors(n_neighbors=150, metric="cosine").fit(vectors)
    for row, order in enumerate(everything.kneighbors(queries, return_distance=False)):
        allowed = [other for other in order if group[other] != query_group[row]]
        assert found[row].tolist() == allowed[:7]


def test_a_picture_is_never_its_own_neighbour():
    vectors, rows = random_vectors(30), np.arange(30)
    found = nearest(vectors, vectors, rows, rows, k=29)
    assert all(sorted([row, *others]) == list(range(30)) for row, others in enumerate(found))


@pytest.mark.parametrize("cells", [1, 130, 1000, 10**9])
def test_blocks_do_not_change_neighbours(cells):
    vectors, group = random_vectors(120), np.arange(120) % 7
    whole = nearest(vectors, vectors, group, group)
    np.testing.assert_array_equal(nearest(vectors, vectors, group, group, cells=cells), whole)


def test_similarities_are_never_all_in_memory(monkeypatch):
    largest = []
    monkeypatch.setattr(
        neighbours.np, "argpartition",
        lambda array, *rest, _real=np.argpartition, **named: (
            largest.append(array.size) or _real(array, *rest, **named)),
    )  # fmt: skip
    vectors, group = random_vectors(300), np.arange(300)
    nearest(vectors, vectors, group, group, cells=5_000)
    assert max(largest) <= 5_000
    assert sum(largest) == 300 * 300


def test_length_means_nothing_and_zeros_are_allowed():
    vectors, group = random_vectors(50), np.arange(50)
    scaled = vectors * np.geomspace(1e-6, 1e6, 50, dtype=np.float32)[:, None]
    expected = nearest(vectors, vectors, group, group)
    np.testing.assert_array_equal(nearest(scaled, scaled, group, group), expected)
    assert not unit(np.zeros((2, 3), np.float32)).any()
    np.testing.assert_allclose(np.linalg.norm(unit(scaled), axis=1), 1, rtol=1e-6)


def test_too_few_candidates_are_an_error():
    vectors, group = random_vectors(12), np.array([0] * 3 + [1] * 9)
    assert nearest(vectors, vectors, group, group, k=3).shape == (12, 3)
    with pytest.raises(ValueError, match="a picture with 3 candidates, expected at least 4"):
        nearest(vectors, vectors, group, group, k=4)


# Questions --------------------------------------------------------------------------------------


def test_perfect_vectors_score_one():
    concept, style = grid()
    rows = np.arange(len(concept))
    of_style, of_concept = questions(concept, style)
    noise = 0.01 * random_vectors(len(rows), 26)
    by_style, by_concept = (
        np.eye(26, dtype=np.float32)[codes] + noise for codes in (style, concept)
    )
    assert ask(of_style, rows, by_style, by_style).value == 1
    assert ask(of_concept, rows, by_concept, by_concept).value == 1
    # And the crossed ones tell nothing: a concept's vectors lie together in no style.
    assert ask(of_style, rows, by_concept, by_concept).value < 0.3
    assert ask(of_concept, rows, by_style, by_style).value < 0.6


def test_scores_by_hand():
    label = np.array([0, 1, 0, 2, 0])
    rows, found = np.array([0, 3]), np.array([[2, 1, 3], [0, 1, 2]])
    share = Question("q", label, np.arange(5), label, "share")
    some = Question("q", label, np.arange(5), label, "any")
    np.testing.assert_allclose(share.scores(rows, found), [1 / 3, 0])
    np.testing.assert_allclose(some.scores(rows, found), [1, 0])


@pytest.mark.parametrize("kind", ["share", "any"])
def test_chance_is_the_mean_over_all_choices(kind):
    rng = np.random.default_rng(0)
    label, group = rng.integers(0, 3, 9), rng.integers(0, 4, 9)
    question = Question("q", label, group, group, kind)
    chance = question.chance(np.arange(9), k=2)
    for row in range(9):
        allowed = [other for other in range(9) if group[other] != group[row]]
        choices = np.array(list(itertools.combinations(allowed, 2)))
        scores = question.scores(np.full(len(choices), row), choices)
        if label[row] in label[allowed]:
            assert chance[row] == pytest.approx(scores.mean())
        else:
            assert np.isnan(chance[row])


def test_random_vectors_score_chance():
    concept, style = grid(100)
    rows, vectors = np.arange(600), random_vectors(600, 16)
    for question in questions(concept, style):
        answer = ask(question, rows, vectors, vectors)
        assert abs(answer.value - answer.chance) < 1.6 * answer.half_width
        assert answer.half_width < 0.03
    assert question.chance(rows).mean() == pytest.approx(
        1 - np.prod([(495 - i) / (500 - i) for i in range(10)])
    )


def test_queries_that_nothing_can_answer_do_not_count():
    concept, style = grid()
    lonely = np.arange(len(concept)) >= 6  # all of concept 0 but its first picture is gone
    lonely[0] = True
    concept, style = concept[lonely], style[lonely]
    vectors = np.eye(20, dtype=np.float32)[concept]
    _, of_concept = questions(concept, style)
    answer = ask(of_concept, np.arange(len(concept)), vectors, vectors)
    assert (answer.queries, answer.value) == (len(concept) - 1, 1)
    with pytest.raises(ValueError, match="concept: got no query for which any candidate is right"):
        ask(of_concept, np.array([0]), vectors[:1], vectors)


def test_moved_queries_meet_unmoved_candidates():
    concept, style = grid(20, styles=12)  # a concept fills the ten nearest
    candidates = np.eye(20, dtype=np.float32)[concept]
    rows = np.array([3, 40])
    _, of_concept = questions(concept, style)
    assert ask(of_concept, rows, candidates[rows], candidates).value == 1
    assert ask(of_concept, rows, candidates[rows[::-1]], candidates).value == 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind: got 'mean', expected one of share, any"):
        Question("q", np.arange(3), np.arange(3), np.arange(3), "mean")


# Intervals --------------------------------------------------------------------------------------


def test_the_half_width_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(size=800)
    expected = 1.96 * values.std() / np.sqrt(800)
    assert half_width(values, np.arange(800), draws=2000) == pytest.approx(expected, rel=0.08)


def test_copies_within_a_cluster_are_no_news():
    values, cluster = np.random.default_rng(0).normal(size=100), np.arange(100)
    once = half_width(values, cluster)
    copied = half_width(np.repeat(values, 6), np.repeat(cluster, 6))
    assert copied == pytest.approx(once)
    assert half_width(np.repeat(values, 6), np.arange(600)) < 0.6 * once
    assert np.isnan(half_width(values, cluster, draws=0))
