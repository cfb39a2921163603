import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_task
from jax.sharding import PartitionSpec as P

from umair_jax.training import sharding
from umair_jax.training import state as states
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import MeshConfig, make_mesh
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")


def initialiser(seed=0, task=None):
    optimiser = make_optimiser(OptimConfig(), 10)
    return states.initialiser(task or toy_task.ToyTask(), optimiser, TableOptimConfig(), seed)


def make(devices=8, seed=0):
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    init = initialiser(seed)
    abstract = states.abstract_state(init, mesh, sharding.DEFAULT_RULES)
    return abstract, states.create(init, abstract)


def test_shapes_and_places_come_first():
    abstract, state = make()
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for leaf, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert isinstance(leaf, jax.ShapeDtypeStruct)
        assert (leaf.shape, leaf.dtype) == (array.shape, array.dtype)
        assert array.sharding == leaf.sharding
    table = state["params"]["tables"]["embedding"]
    assert table.sharding.spec == P(("data", "model"))
    assert [shard.data.shape for shard in table.addressable_shards] == [(8, 4)] * 8
    accumulator = jax.tree.leaves(state["opt"]["tables"]["embedding"])[0]
    assert accumulator.addressable_shards[0].data.shape[0] == 8
    assert state["step"].dtype == jnp.int32
    assert set(state) == {"step", "params", "stats", "opt"}
    assert all(isinstance(node, dict) for node in (state["opt"], state["opt"]["net"]["adam"]))


def test_no_array_is_ever_created_whole(monkeypatch):
    """Every leaf is written by one jitted function that is told where each of them goes."""
    given = {}
    jit = jax.jit

    def recorded(function, **options):
        given.update(options)
        return jit(function, **options)

    monkeypatch.setattr(states.jax, "jit", recorded)
    abstract, _ = make()
    assert given["out_shardings"] == states.shardings_of(abstract)


def test_the_same_state_on_every_number_of_devices():
    first = toy_task.leaves(make(1)[1])
    for devices in (2, 8):
        other = toy_task.leaves(make(devices)[1])
        for path, leaf in first.items():
            np.testing.assert_array_equal(leaf, other[path], err_msg=path)


def test_the_seed_decides():
    tables = [np.asarray(make(1, seed)[1]["params"]["tables"]["embedding"]) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])


def test_what_is_compiled_for_one_seed_serves_another():
    made = jax.jit(lambda init: init())
    assert made.lower(initialiser(0)).as_text() == made.lower(initialiser(1)).as_text()


def test_a_task_without_tables_and_statistics():
    class Plain:
        def init(self, key):
            return {"params": {"net": {"w": jnp.zeros((2, 3))}}}

    state = initialiser(task=Plain())()
    assert state["params"]["tables"] == state["stats"] == state["opt"]["tables"] == {}


def test_rows_that_do_not_divide_are_named_by_path():
    class Odd(toy_task.ToyTask):
        def init(self, key):
            made = super().init(key)
            made["params"]["tables"]["embedding"] = jnp.zeros((63, 4))
            return made

    with pytest.raises(ValueError, match=r"params/tables/embedding: .*pad 63 to a multiple"):
        states.abstract_state(
            initialiser(task=Odd()), make_mesh(MeshConfig()), sharding.DEFAULT_RULES
        )


def test_description():
    abstract, state = make()
    assert states.count_params(abstract) == 64 * 4 + 3 + 1
    text = states.describe(abstract)
    lines = text.splitlines()
    assert lines[0].split() == ["path", "shape", "dtype", "spec", "bytes/device"]
    row = next(line for line in lines if line.startswith("params/tables/embedding "))
    assert row.split()[1:3] == ["64x4", "float32"]
    assert row.split()[-1] == "128"
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert lines[-1] == f"260 parameters; state of {held:,} bytes per device"
    assert not any(line.startswith("step") for line in lines)
