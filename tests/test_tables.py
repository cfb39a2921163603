"""Stacked tables: sizes, initial values by block, look-ups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.tables import TableSpec, init_table, lookup


def test_rows_are_padded_to_a_multiple_of_1024():
    assert TableSpec("t", 1024, 8).padded_rows == 1024
    assert TableSpec("t", 1025, 8).padded_rows == 2048


def test_every_block_starts_at_the_scale_of_its_own_size():
    spec = TableSpec("embedding", 1 + 10 + 3000, 8, blocks=((1, 10), (11, 3000)))
    table = np.asarray(init_table(spec, jax.random.key(0)))
    assert table.shape == (3072, 8)
    assert table.dtype == np.float32
    assert (table[0] == 0).all()
    assert (table[3011:] == 0).all()
    for start, rows in spec.blocks:
        limit = np.sqrt(6 / (rows + 8))
        block = np.abs(table[start : start + rows])
        assert 0.85 * limit < block.max() <= limit


def test_without_blocks_the_table_is_one():
    table = np.asarray(init_table(TableSpec("wide", 500, 1), jax.random.key(0)))
    limit = np.sqrt(6 / 500)
    assert 0.95 * limit < np.abs(table).max() <= limit
    assert (init_table(TableSpec("wide", 500, 1, init="zeros"), jax.random.key(0)) == 0).all()


def test_lookup_of_any_shape_and_of_unknown_rows():
    table = jnp.arange(12.0).reshape(4, 3)
    rows = jnp.array([[0, 3], [-1, 2]], jnp.int32)
    np.testing.assert_array_equal(
        lookup(table, rows), np.asarray(table)[np.array([[0, 3], [0, 2]])]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0, "width": 8}, "at least 1"),
        ({"rows": 10, "width": 8, "blocks": ((0, 4),)}, "row 0 is the unknown"),
        ({"rows": 10, "width": 8, "blocks": ((1, 4), (4, 2))}, "do not overlap"),
        ({"rows": 10, "width": 8, "blocks": ((1, 10),)}, "within rows 1 to 9"),
        ({"rows": 10, "width": 8, "init": "ones"}, "expected one of glorot_uniform, zeros"),
    ],
)
def test_bad_specs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TableSpec("t", **arguments)
