"""Factorisation machine and wide part."""

from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.fm import fm_from_sums, fm_logit, fm_sums
from umair_jax.models.wide import wide_logit

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parity
def test_fm_matches_the_published_numbers():
    data = np.load(GOLDEN / "fm.npz")
    y, back = jax.vjp(lambda x: fm_logit(x), jnp.asarray(data["x"]))
    np.testing.assert_allclose(y, data["y"][:, 0], atol=1e-5)
    np.testing.assert_allclose(back(jnp.asarray(data["ct"][:, 0]))[0], data["g/x"], atol=1e-5)


def test_fm_is_the_sum_over_pairs_across_groups():
    x = jax.random.normal(jax.random.key(0), (3, 5, 4))
    pairs = sum((x[:, i] * x[:, j]).sum(axis=1) for i, j in combinations(range(5), 2))
    np.testing.assert_allclose(fm_logit(x[:, :2], x[:, 2:]), pairs, atol=1e-5)


def test_wide_part_is_the_sum_of_its_weights():
    np.testing.assert_allclose(wide_logit(jnp.array([[1.0, 2.0], [3.0, -1.0]])), [3.0, 2.0])


def test_sums_of_groups_make_the_factorisation_machine():
    one, two = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    total, squares = (a + b for a, b in zip(fm_sums(one), fm_sums(two), strict=True))
    np.testing.assert_allclose(fm_from_sums(total, squares), fm_logit(one, two), rtol=1e-5)
