import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.sampled_softmax import SampledSoftmaxConfig, known_pairs, sampled_softmax

# Users 7 and 8 twice, item 3 twice; the last example is padding.
USER = np.array([7, 8, 7, 9, 8, 7])
ITEM = np.array([3, 4, 5, 3, 6, 4])
WEIGHT = np.array([1, 1, 1, 1, 1, 0], np.float32)
Q = np.array([0.4, 0.2, 0.1, 0.4, 0.3, 0.2], np.float32)


jitted = jax.jit(sampled_softmax, static_argnums=7)


def vectors(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, len(USER), 3)).astype(np.float32)


def loss(user, item, weight=WEIGHT, correction=1.0, scale=2.0):
    arrays = map(jnp.asarray, (user, item, USER, ITEM, np.log(Q), weight))
    return jitted(*arrays, scale, SampledSoftmaxConfig(correction))


@pytest.mark.parametrize("correction", [1.0, 0.5, 0.0])
def test_it_is_the_corrected_soft_max_over_what_is_no_positive(correction):
    user, item = vectors()
    # By hand: which items of the batch are negatives of each example. Example 0 (user 7, item 3)
    # meets item 3 again in example 3, and item 5, which user 7 has in example 2.
    negatives = [[1, 4], [0, 2, 3], [1, 4], [1, 2, 4], [0, 2, 3]]
    each, best = loss(user, item, correction=correction)
    for i, others in enumerate(negatives):
        columns = [i, *others]
        logit = 2.0 * item[columns] @ user[i] - correction * np.log(Q[columns])
        assert float(each[i]) == pytest.approx(
            np.log(np.exp(logit - logit[0]).sum()), rel=1e-5, abs=1e-6
        )
        assert float(best[i]) == (logit[0] == logit.max())


def test_an_item_that_was_not_available_is_no_negative_and_a_bias_is_the_items_own():
    user, item = vectors()
    bias = np.arange(6, dtype=np.float32)
    there = np.ones((6, 6), bool)
    there[0, [0, 1]] = False  # the own item always counts
    arrays = map(jnp.asarray, (user, item, USER, ITEM, np.log(Q), WEIGHT))
    given = jnp.asarray(bias), jnp.asarray(there)
    each, _ = jitted(*arrays, 2.0, SampledSoftmaxConfig(0.0), *given)
    for i, columns in ((0, [0, 4]), (2, [2, 1, 4])):
        logit = 2.0 * item[columns] @ user[i] + bias[columns]
        assert float(each[i]) == pytest.approx(np.log(np.exp(logit - logit[0]).sum()), rel=1e-5)


def test_padding_is_neither_query_nor_candidate():
    user, item = vectors()
    other_user, other_item = vectors(1)
    for changed in ((user, item), (other_user, other_item)):
        ends = [np.concatenate([a[:5], b[5:]]) for a, b in zip((user, item), changed, strict=True)]
        each, _ = loss(*ends)
        np.testing.assert_array_equal(each[:5], loss(user, item)[0][:5])
        assert np.isfinite(each).all()
    slope = jax.grad(lambda x: (loss(user, x)[0] * WEIGHT).sum())(jnp.asarray(item))
    assert (slope[5] == 0).all()
    assert (np.abs(slope[:5]) > 0).any(axis=1).all()


def test_pairs_equal_the_obvious_way():
    rng = np.random.default_rng(0)
    for _ in range(5):
        user, item, real = rng.integers(0, 5, 12), rng.integers(0, 6, 12), rng.random(12) < 0.8
        pairs = {(u, i) for u, i, r in zip(user, item, real, strict=True) if r}
        expected = [[(u, i) in pairs for i in item] for u in user]
        found = jax.jit(known_pairs)(*map(jnp.asarray, (user, item, real)))
        np.testing.assert_array_equal(found, expected)


def test_a_share_outside_0_and_1_is_refused():
    with pytest.raises(ValueError, match=r"correction: got 1\.5, expected 0 to 1"):
        SampledSoftmaxConfig(1.5)
