import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.losses import (
    MultiLabelConfig,
    agreement,
    multi_label,
    redundancy,
    standardised,
    unit,
)


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
    each, found = agreement(one, other, jnp.ones(6), 0.5)
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
    each, _ = agreement(one, other, weight, 0.1)
    alone, _ = agreement(one[kept], other[kept], jnp.ones(4), 0.1)
    np.testing.assert_allclose(each[kept], alone, rtol=1e-5)
    slope = jax.grad(lambda x: (agreement(x, other, weight, 0.1)[0] * weight).sum())(one)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[2], 0)


def test_agreement_does_not_depend_on_lengths_and_perfect_partners_are_found():
    one = jax.random.normal(jax.random.key(4), (8, 16))
    each, found = agreement(one, 7 * one, jnp.ones(8), 0.05)
    assert bool(found.all())
    np.testing.assert_allclose(each, agreement(one, one, jnp.ones(8), 0.05)[0], rtol=1e-4)


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
