import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.losses import (
    MultiLabelConfig,
    RankingConfig,
    agreement,
    multi_label,
    ranking,
    redundancy,
    standardised,
    unit,
)

agree = jax.jit(agreement, static_argnums=3)


@pytest.fixture
def case():
    logit = 3 * jax.random.normal(jax.random.key(0), (5, 7))
    label = jax.random.bernoulli(jax.random.key(1), 0.3, (5, 7)).astype(jnp.float32)
    return logit, label


def by_hand(logit, label, positive, negative):
    p = 1 / (1 + np.exp(-np.asarray(logit, np.float64)))
    return np.where(np.asarray(label) > 0, positive(p), negative(p)).sum(1)


@pytest.mark.parametrize(
    ("cfg", "positive", "negative"),
    [
        (MultiLabelConfig("bce"), lambda p: -np.log(p), lambda p: -np.log(1 - p)),
        (
            MultiLabelConfig("focal", gamma=2.0),
            lambda p: -((1 - p) ** 2) * np.log(p),
            lambda p: -(p**2) * np.log(1 - p),
        ),
        (
            MultiLabelConfig("asymmetric", gamma_positive=1.0, gamma_negative=3.0, margin=0.1),
            lambda p: -(1 - p) * np.log(p),
            lambda p: -(np.maximum(p - 0.1, 0) ** 3) * np.log(1 - np.maximum(p - 0.1, 0)),
        ),
    ],
)
def test_losses_follow_their_equations(case, cfg, positive, negative):
    np.testing.assert_allclose(
        multi_label(*case, cfg), by_hand(*case, positive, negative), rtol=1e-5
    )


@pytest.mark.parametrize("kind", ["bce", "focal", "asymmetric"])
def test_certain_predictions_have_finite_losses_and_gradients(kind):
    logit = jnp.array([[90.0, -90.0], [-90.0, 90.0]])
    label = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    value, slope = jax.value_and_grad(
        lambda x: multi_label(x, label, MultiLabelConfig(kind)).sum()
    )(logit)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_agreement_is_the_cross_entropy_among_the_batch():
    one, other = jax.random.normal(jax.random.key(2), (2, 6, 4))
    each, found = agree(one, other, jnp.ones(6), 0.5)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.asarray, (one, other)))
    logit = a @ b.T / 0.5
    rows = np.log(np.exp(logit).sum(1)) - np.diag(logit)
    columns = np.log(np.exp(logit).sum(0)) - np.diag(logit)
    np.testing.assert_allclose(each, (rows + columns) / 2, rtol=1e-4)
    np.testing.assert_array_equal(found, logit.argmax(1) == np.arange(6))


def test_an_excluded_example_is_nobodys_alternative():
    one, other = jax.random.normal(jax.random.key(3), (2, 5, 4))
    weight = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])
    kept = np.array([0, 1, 3, 4])
    each, _ = agree(one, other, weight, 0.1)
    alone, _ = agree(one[kept], other[kept], jnp.ones(4), 0.1)
    np.testing.assert_allclose(each[kept], alone, rtol=1e-5)
    slope = jax.grad(lambda x: (agree(x, other, weight, 0.1)[0] * weight).sum())(one)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[2], 0)


def test_agreement_does_not_depend_on_lengths_and_perfect_partners_are_found():
    one = jax.random.normal(jax.random.key(4), (8, 16))
    each, found = agree(one, 7 * one, jnp.ones(8), 0.05)
    assert bool(found.all())
    np.testing.assert_allclose(each, agree(one, one, jnp.ones(8), 0.05)[0], rtol=1e-4)


def test_standardised_numbers_have_mean_0_and_variance_1_over_what_counts():
    vectors = 5 + 3 * jax.random.normal(jax.random.key(5), (7, 3))
    weight = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    found = np.asarray(standardised(vectors, weight))[np.asarray(weight) > 0]
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-4)


def test_redundancy_is_the_sum_of_squared_correlations():
    vectors, weight = jax.random.normal(jax.random.key(6), (9, 4)), jnp.ones(9)
    correlation = np.corrcoef(vectors, rowvar=False)
    expected = (np.square(correlation).sum() - 4) / 4
    assert float(redundancy(vectors, weight)) == pytest.approx(expected, rel=1e-4)
    # An excluded example changes nothing, and numbers that move together are redundant.
    longer, padded = jnp.concatenate([vectors, vectors[:1] + 9]), jnp.append(weight, 0.0)
    assert float(redundancy(longer, padded)) == pytest.approx(expected, rel=1e-4)
    twins = jnp.concatenate([vectors[:, :1], -2 * vectors[:, :1]], axis=1)
    assert float(redundancy(twins, weight)) == pytest.approx(1, rel=1e-3)


def test_a_zero_vector_has_a_finite_gradient():
    slope = jax.grad(lambda x: unit(x).sum())(jnp.zeros((2, 3)))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("options", [{"kind": "hinge"}, {"gamma": -1.0}, {"margin": 1.0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        MultiLabelConfig(**options)


@pytest.fixture
def texts():
    first, second = jax.random.normal(jax.random.key(2), (2, 6, 4))
    return first, second, jnp.arange(6), jnp.arange(10, 16), jnp.ones(6)


def cosines(first, second):
    return np.asarray(unit(first)) @ np.asarray(unit(second)).T


def cross_entropy(logit, allowed):
    logit = np.where(allowed, logit, -np.inf)
    return np.log(np.exp(logit).sum(1)) - np.diagonal(logit)


@pytest.mark.parametrize("symmetric", [False, True])
def test_ranking_is_cross_entropy_over_the_partners_of_all(texts, symmetric):
    logit = 20 * cosines(*texts[:2])
    everywhere = np.ones((6, 6), bool)
    expected = cross_entropy(logit, everywhere)
    if symmetric:
        expected = (expected + cross_entropy(logit.T, everywhere)) / 2
    loss, right = ranking(*texts, RankingConfig(symmetric=symmetric))
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(right, logit.argmax(1) == np.arange(6))


def test_a_text_is_never_its_own_negative(texts):
    first, second, first_id, second_id, weight = texts
    allowed = np.ones((6, 6), bool)
    first_id = first_id.at[1].set(0)  # 0 and 1 ask with one text
    allowed[0, 1] = allowed[1, 0] = False
    second_id = second_id.at[3].set(12)  # 2 and 3 have one partner
    allowed[2, 3] = allowed[3, 2] = False
    second_id = second_id.at[5].set(4)  # 4 asks with the partner of 5
    allowed[4, 5] = False
    for symmetric in (False, True):
        logit = 20 * cosines(first, second)
        expected = cross_entropy(logit, allowed)
        if symmetric:
            expected = (expected + cross_entropy(logit.T, allowed.T)) / 2
        cfg = RankingConfig(symmetric=symmetric)
        loss, _ = ranking(first, second, first_id, second_id, weight, cfg)
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_excluded_pair_is_nobodys_negative(texts, symmetric):
    first, second, first_id, second_id, _ = texts
    cfg = RankingConfig(symmetric=symmetric)
    weight = jnp.array([1, 1, 1, 1, 1, 0.0])
    loss, _ = ranking(first, second, first_id, second_id, weight, cfg)
    alone, _ = ranking(first[:5], second[:5], first_id[:5], second_id[:5], weight[:5], cfg)
    np.testing.assert_allclose(loss[:5], alone, rtol=1e-5, atol=1e-6)
    assert np.isfinite(loss).all()


def test_hard_negatives_are_further_candidates(texts):
    first, second, first_id, second_id, weight = texts
    hard = jax.random.normal(jax.random.key(3), (6, 4))
    logit = 20 * cosines(first, jnp.concatenate([second, hard]))
    allowed = np.ones((6, 12), bool)
    allowed[:, 8] = False  # there is none
    hard_id = jnp.arange(20, 26).at[2].set(-1)
    loss, _ = ranking(
        first,
        jnp.concatenate([second, hard]),
        first_id,
        jnp.concatenate([second_id, hard_id]),
        weight,
        RankingConfig(),
    )
    np.testing.assert_allclose(loss, cross_entropy(logit, allowed), rtol=1e-5, atol=1e-5)


def test_a_ranking_without_scale_is_refused():
    with pytest.raises(ValueError, match="scale"):
        RankingConfig(scale=0.0)
