import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.training.stored_rows import DTYPES, closed, opened, stored, width

VALUES = jax.random.normal(jax.random.key(0), (50, 6))
ROWS, STEP = jnp.arange(50), jnp.array(3)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 0), ("bfloat16", 2**-8), ("int8", None)])
def test_a_new_table_holds_the_nearest_values(dtype, within):
    table = stored(VALUES, dtype)
    assert table.dtype == jnp.dtype(dtype)
    assert width(table) == 6
    found = np.asarray(opened(table))
    assert found.dtype == np.float32
    largest = np.abs(VALUES).max(axis=1, keepdims=True)
    allowed = largest / 254 * 1.0001 if dtype == "int8" else within * np.abs(VALUES)
    assert (np.abs(found - VALUES) <= allowed).all()


def test_an_int8_row_carries_its_scale_behind_its_numbers():
    table = np.asarray(stored(jnp.array([[1.0, -2.54, 0.004]]), "int8"))
    assert table.shape == (1, 7)
    np.testing.assert_array_equal(table[0, :3], [50, -127, 0])
    np.testing.assert_allclose(table[0, 3:].copy().view(np.float32), [0.02], rtol=1e-6)


def test_what_would_grow_stays_float32():
    assert stored(jnp.ones((4, 1)), "int8").dtype == jnp.float32
    assert stored(jnp.ones((4, 2)), "int8").nbytes < 4 * 2 * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_a_table_holds_already_is_not_moved(dtype):
    table = stored(VALUES, dtype)
    values = opened(table)
    again = opened(closed(values, ROWS, STEP, table.dtype.name))
    # A division by the scale may miss a whole number of steps by a rounding.
    np.testing.assert_allclose(again, values, atol=0 if dtype != "int8" else 2e-2, rtol=0)
    moved = ~np.isclose(again, values, rtol=1e-6, atol=0)
    assert moved.mean() < (0.02 if dtype == "int8" else 1e-9)
    zeros = stored(jnp.zeros((3, 6)), dtype)
    np.testing.assert_array_equal(opened(zeros), 0)
    np.testing.assert_array_equal(
        opened(closed(jnp.zeros((3, 6)), ROWS[:3], STEP, zeros.dtype.name)), 0
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_rounding_goes_both_ways_and_nowhere_in_the_mean(dtype):
    rounded = jax.jit(lambda step: opened(closed(VALUES, ROWS, step, dtype)))
    drawn = np.stack([rounded(jnp.array(step)) for step in range(400)])
    spread = drawn.max(axis=0) - drawn.min(axis=0)
    largest = np.abs(VALUES).max(axis=1, keepdims=True)
    step = largest / 127 if dtype == "int8" else 2.0**-7 * np.abs(VALUES)
    assert (spread <= step * 1.01).all()
    assert (spread > 0).mean() > 0.8  # in int8 the largest of each row fits
    # 400 draws of one of two neighbours: five standard errors.
    error = np.abs(drawn.mean(axis=0) - VALUES)
    assert (error <= 5 * 0.5 * step / 20).all()


def test_what_is_not_finite_is_not_hidden():
    values = jnp.array([[1.0, -2.5, 0.0, jnp.inf, -jnp.inf, jnp.nan, 3e38]])
    found = np.asarray(opened(closed(values, jnp.array([5]), STEP, "bfloat16")))
    np.testing.assert_array_equal(found[0, :6], values[0, :6])
    assert found[0, 6] == pytest.approx(3e38, rel=0.01)
    for value in (jnp.nan, jnp.inf):
        rows = jnp.array([[1.0, value, 0.0], [1.0, 2.0, 3.0]])
        found = np.asarray(opened(closed(rows, jnp.array([5, 6]), STEP, "int8")))
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()


def test_luck_depends_on_row_column_and_step_alone():
    kind = "int8"
    whole = closed(VALUES, ROWS, STEP, kind)
    np.testing.assert_array_equal(closed(VALUES[20:30], ROWS[20:30], STEP, kind), whole[20:30])
    assert (np.asarray(closed(VALUES, ROWS, STEP + 1, kind)) != np.asarray(whole)).any()
    assert (np.asarray(closed(VALUES, ROWS + 1, STEP, kind)) != np.asarray(whole)).any()
