import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.training import distinct_rows, stored_rows
from umair_jax.training.sharding import MeshConfig, make_mesh
from umair_jax.training.table_optimisers import (
    NAMES,
    TableOptimConfig,
    gather_rows,
    init_table,
    table_config,
    update_table,
)

V, D = 64, 4


@pytest.fixture(autouse=True, params=["at once", "in parts of 8"])
def way(request, monkeypatch):
    """Accelerators' way of visiting rows, and that of CPUs."""
    if request.param == "at once":
        monkeypatch.setattr(
            jax.lax, "platform_dependent", lambda *given, cpu, default: default(*given)
        )
    else:
        monkeypatch.setattr(distinct_rows, "_PART", 8)


def data(steps=5, n=24, high=V, seed=0):
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(V, D)).astype(np.float32)
    rows = generator.integers(0, high, (steps, n)).astype(np.int32)
    gradients = generator.normal(size=(steps, n, D)).astype(np.float32)
    return table, rows, gradients


def run(config, table, rows, gradients, mesh=None):
    table = jnp.asarray(table)
    state = init_table(table, config)
    if mesh is not None:
        spread = NamedSharding(mesh, P(("data", "model")))
        table, state = jax.device_put((table, state), spread)

    @jax.jit
    def update(table, state, rows, gradients, step):
        return update_table(table, state, rows, gradients, 0.1, step, config, mesh)

    for step, (r, g) in enumerate(zip(rows, gradients, strict=True)):
        table, state = update(table, state, r, g, step)
    return np.asarray(table), jax.tree.map(np.asarray, state)


def run_dense(transform, table, rows, gradients):
    table = jnp.asarray(table)
    state = transform.init(table)
    for r, g in zip(rows, gradients, strict=True):
        dense = jnp.zeros_like(table).at[r].add(g)
        changes, state = transform.update(dense, state, table)
        table = table + changes
    return np.asarray(table)


def test_adagrad_equals_dense_adagrad():
    table, rows, gradients = data()
    ours, _ = run(TableOptimConfig("adagrad"), table, rows, gradients)
    dense = run_dense(optax.adagrad(0.1, 0.1, 1e-7), table, rows, gradients)
    np.testing.assert_allclose(ours, dense, atol=1e-6)


def test_sgd_equals_dense_sgd():
    table, rows, gradients = data()
    ours, _ = run(TableOptimConfig("sgd"), table, rows, gradients)
    np.testing.assert_allclose(ours, run_dense(optax.sgd(0.1), table, rows, gradients), atol=1e-6)


def test_adam_equals_dense_adam_on_rows_touched_every_step():
    table, rows, gradients = data(n=40)
    rows[:, : V // 4] = np.arange(V // 4)
    ours, _ = run(TableOptimConfig("adam"), table, rows, gradients)
    dense = run_dense(optax.adam(0.1, 0.9, 0.999, 1e-7), table, rows, gradients)
    np.testing.assert_allclose(ours[: V // 4], dense[: V // 4], atol=1e-6)


def test_rowwise_adagrad_by_hand():
    table = np.zeros((4, 2), np.float32)
    rows = np.array([[2, 2, 3]], np.int32)
    gradients = np.array([[[1, 2], [3, 0], [0, 1]]], np.float32)
    ours, state = run(TableOptimConfig("rowwise_adagrad"), table, rows, gradients)
    # Row 2: summed gradient (4, 2), mean square 10; row 3: (0, 1), mean square 0.5.
    np.testing.assert_allclose(state["accumulator"], [0.1, 0.1, 10.1, 0.6], rtol=1e-6)
    np.testing.assert_allclose(ours[2], -0.1 * np.array([4, 2]) / np.sqrt(10.1), rtol=1e-6)
    np.testing.assert_allclose(ours[3], -0.1 * np.array([0, 1]) / np.sqrt(0.6), rtol=1e-6)
    np.testing.assert_array_equal(ours[:2], 0)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_rows_of_the_batch_change(name):
    table, rows, gradients = data(high=20)
    ours, _ = run(TableOptimConfig(name), table, rows, gradients)
    np.testing.assert_array_equal(ours[20:], table[20:])
    assert np.all(np.any(ours[np.unique(rows)] != table[np.unique(rows)], axis=1))


@pytest.mark.parametrize("name", ["rowwise_adagrad", "adagrad", "sgd"])
def test_padding_without_gradient_changes_nothing(name):
    table, rows, gradients = data()
    padded = np.concatenate([rows, np.zeros_like(rows)], axis=1)
    none = np.concatenate([gradients, np.zeros_like(gradients)], axis=1)
    ours, _ = run(TableOptimConfig(name), table, padded, none)
    expected, _ = run(TableOptimConfig(name), table, rows, gradients)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_l2_counts_a_row_once_a_step():
    table = np.ones((4, 2), np.float32)
    rows = np.array([[1, 1, 1]], np.int32)
    ours, _ = run(TableOptimConfig("sgd", l2=0.5), table, rows, np.zeros((1, 3, 2), np.float32))
    np.testing.assert_allclose(ours[1], 1 - 0.1 * 0.5)
    np.testing.assert_array_equal(ours[2:], 1)


@pytest.mark.parametrize("name", NAMES)
def test_same_on_any_number_of_devices(name):
    table, rows, gradients = data(n=24)
    expected, state = run(TableOptimConfig(name, l2=0.01), table, rows, gradients)
    for devices, model in ((2, 1), (4, 2), (8, 1), (8, 4)):
        mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
        ours, sharded = run(TableOptimConfig(name, l2=0.01), table, rows, gradients, mesh)
        np.testing.assert_allclose(ours, expected, atol=2e-6)
        for slot in sharded.keys() - {"slot"}:
            np.testing.assert_allclose(sharded[slot], state[slot], atol=2e-6)


@pytest.mark.parametrize("shape", [(16,), (8, 3), (5, 2)])
def test_look_up_is_indexing_on_any_mesh(shape):
    table, _, _ = data()
    rows = np.random.default_rng(1).integers(0, V, shape).astype(np.int32)
    for devices, model in ((1, 1), (2, 2), (8, 1), (8, 2)):
        mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
        spread = jax.device_put(table, NamedSharding(mesh, P(("data", "model"))))
        found = jax.jit(lambda t, r, mesh=mesh: gather_rows(t, r, mesh))(spread, rows)
        np.testing.assert_array_equal(np.asarray(found), table[rows])


HALF = ("bfloat16", "int8")


def half(table, dtype="bfloat16"):
    return stored_rows.stored(jnp.asarray(table), dtype)


def full(table):
    return np.asarray(stored_rows.opened(jnp.asarray(table)))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", NAMES)
def test_tables_in_less_memory_follow_those_in_float32(name, dtype):
    table, rows, gradients = data(steps=30)
    config = TableOptimConfig(name, l2=0.01)
    ours, state = run(config, half(table, dtype), rows, gradients)
    expected, expected_state = run(config, table, rows, gradients)
    assert ours.dtype == jnp.dtype(dtype)
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {
        k: (v.shape, v.dtype) for k, v in expected_state.items()
    }
    difference = full(ours) - expected
    # Thirty roundings of weights of about 1, each by less than 2^-7 (of int8 by less than 1 / 127
    # of the largest of a row, of up to 3), in the mean by nothing.
    assert np.abs(difference).max() < 0.15
    assert np.abs(difference.mean()) < 0.01
    untouched = np.setdiff1d(np.arange(V), rows)
    np.testing.assert_array_equal(ours[untouched], np.asarray(half(table, dtype))[untouched])


@pytest.mark.parametrize("dtype", HALF)
def test_updates_too_small_to_be_kept_count_in_the_mean(dtype):
    """A thousand steps of 1e-4 on weights of 1, whose neighbour is 0.004 or 0.008 away."""
    steps, table = 1000, np.ones((V, D), np.float32)
    table[:, 0] = 2.0  # the scale of an int8 row
    rows = np.tile(np.arange(V, dtype=np.int32), (steps, 1))
    gradients = np.full((steps, V, D), 1e-3, np.float32)  # the rate is 0.1
    gradients[..., 0] = 0
    ours, _ = run(TableOptimConfig("sgd"), half(table, dtype), rows, gradients)
    ours = full(ours)
    np.testing.assert_allclose(ours[:, 0], 2.0, rtol=1e-6)
    assert ours[:, 1:].mean() == pytest.approx(0.9, abs=0.005 if dtype == "bfloat16" else 0.015)
    assert len(np.unique(ours[:, 1:])) > 10  # each weight has luck of its own
    nearest = half(np.array([[2.0, 1.0]], np.float32), dtype)
    for _ in range(10):
        nearest = half(full(nearest) - np.float32([[0, 1e-4]]), dtype)
    assert full(nearest)[0, 1] == full(half(np.array([[2.0, 1.0]], np.float32), dtype))[0, 1]


@pytest.mark.parametrize("dtype", HALF)
def test_rounding_is_the_same_on_any_number_of_devices(dtype):
    table, rows, gradients = data(steps=8, n=16)
    rows = np.stack([np.random.default_rng(k).permutation(V)[:16] for k in range(8)])
    rows = rows.astype(np.int32)  # none twice: sums in another order would be another value
    expected, _ = run(TableOptimConfig("sgd"), half(table, dtype), rows, gradients)
    for devices, model in ((2, 1), (8, 1), (8, 4)):
        mesh = make_mesh(MeshConfig(model=model), jax.devices()[:devices])
        ours, _ = run(TableOptimConfig("sgd"), half(table, dtype), rows, gradients, mesh)
        np.testing.assert_array_equal(ours, expected)
        found = jax.jit(lambda t, r, mesh=mesh: gather_rows(t, r, mesh))(
            jax.device_put(ours, NamedSharding(mesh, P(("data", "model")))), rows[0]
        )
        np.testing.assert_array_equal(found, full(ours)[rows[0]])


def lowered(config, devices, rows=4096):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    spread = NamedSharding(mesh, P(("data", "model")))

    def placed(shape):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=spread)

    table = jax.eval_shape(lambda: half(jnp.zeros((rows, D)), config.dtype))
    state = jax.tree.map(placed, jax.eval_shape(lambda t: init_table(t, config), table))
    shape = (rows // devices, D)

    def update(table, state, rows, gradients):
        return update_table(table, state, rows, gradients, 0.1, 0, config, mesh)

    jitted = jax.jit(update, donate_argnums=(0, 1))
    given = (jnp.zeros(16, jnp.int32), jnp.zeros((16, D)))
    return jitted.lower(placed(table), state, *given).compile(), shape


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
    "config", [*map(TableOptimConfig, NAMES), TableOptimConfig(dtype="int8")], ids=str
)
def test_cost_does_not_depend_on_the_rows(config, devices):
    """Arrays as tall as the table are only passed on or scattered into, in place."""
    compiled, (height, _) = lowered(config, devices)
    text = compiled.as_text()
    allowed = (
        "parameter",
        "scatter",
        "fusion",
        "get-tuple-element",
        "tuple",
        "bitcast",
        "while",
        "dynamic-update-slice",
        "call",
        "select",
        "conditional",
    )
    tall = re.findall(rf"= \(?\w+\[{height}(?:,\d+)?\]\S* ([\w-]+)\(", text)
    assert tall, "the table is not in the program"
    assert set(tall) <= set(allowed), sorted(set(tall) - set(allowed))
    assert "input_output_alias" in text
    # No device ever holds the rows of another one.
    assert devices == 1 or f"[{height * devices}" not in text
    assert "sort(" not in text
    assert compiled.memory_analysis().temp_size_in_bytes < height * D * 4 / 2


def test_configuration_mistakes_are_named():
    with pytest.raises(ValueError, match="adagrad, adam, rowwise_adagrad, sgd"):
        TableOptimConfig("adamax")
    with pytest.raises(ValueError, match="learning_rate"):
        TableOptimConfig(learning_rate=0.0)
    one = TableOptimConfig()
    assert table_config(one, "wide") is one
    assert table_config({"wide": one}, "wide") is one
    with pytest.raises(ValueError, match="embedding"):
        table_config({"wide": one}, "embedding")
