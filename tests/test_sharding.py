from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.data.batches import BatchSource
from umair_jax.training import sharding
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh, place_context, spec_of


def mesh_of(devices=8, model=1):
    return make_mesh(MeshConfig(model=model), jax.devices()[:devices])


def shapes(**leaves):
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in leaves.items()}


def test_mesh():
    assert dict(make_mesh(MeshConfig()).shape) == {"data": 8, "model": 1}
    assert dict(make_mesh(MeshConfig(model=4)).shape) == {"data": 2, "model": 4}
    assert dict(make_mesh(MeshConfig(data=4, model=2)).shape) == {"data": 4, "model": 2}
    four = jax.devices()[4:]
    assert list(make_mesh(MeshConfig(model=2), four).devices.flat) == four


def test_a_mesh_of_other_devices_becomes_one_that_fits():
    for config in (MeshConfig(), MeshConfig(data=4, model=2), MeshConfig(model=8)):
        assert sharding.fitting(config, 8) == config
    assert sharding.fitting(MeshConfig(data=4, model=2), 1) == MeshConfig()
    assert sharding.fitting(MeshConfig(model=2, rules=(("", ()),)), 3) == MeshConfig(
        rules=(("", ()),)
    )


@pytest.mark.parametrize("model", [1, 2, 4])
def test_devices_of_a_host_are_neighbours_along_the_batch(model):
    # The processes of a 4 x 4 slice of TPU v5e in the order of jax's create_device_mesh.
    order = (0, 0, 1, 1, 1, 1, 0, 2, 3, 3, 3, 3, 2, 2, 2, 0)
    devices = [SimpleNamespace(process_index=host, id=place) for place, host in enumerate(order)]
    grid = sharding.hosts_together(np.array(devices, dtype=object).reshape(-1, model))
    assert grid.shape == (16 // model, model)
    assert [device.process_index for device in grid.flat] == sorted(order)
    for host in range(4):
        kept = [device.id for device in grid.flat if device.process_index == host]
        assert kept == [place for place, there in enumerate(order) if there == host]


@pytest.mark.parametrize(("data", "model"), [(-1, 3), (4, 1), (-1, 16), (16, 1)])
def test_a_mesh_that_does_not_fit(data, model):
    with pytest.raises(ValueError, match=f"data={data} x model={model} does not fit 8 devices"):
        make_mesh(MeshConfig(data=data, model=model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 0}, "mesh sizes must be 1 or more"),
        ({"data": 0}, "mesh sizes must be 1 or more"),
        ({"data": -2}, "mesh sizes must be 1 or more"),
        ({"rules": (("a",),)}, "a sharding rule is"),
        ({"rules": ((3, ()),)}, "a sharding rule is"),
        ({"rules": (("a", (("daat",),)),)}, "unknown mesh axis 'daat'"),
        ({"context_rules": (("a", "data"),)}, "a list with an entry for each axis"),
        ({"rules": (("(", ()),)}, r"'\(' is no regular expression"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        MeshConfig(**change)


def test_spec_from_what_a_config_holds():
    assert spec_of([["data", "model"], None]) == P(("data", "model"), None)
    assert spec_of(["data", "model"]) == P("data", "model")
    assert spec_of([]) == P()


def test_first_match_wins():
    tree = {"params": shapes(a=(8, 6), b=(8, 6)), "opt": {"layers": {0: shapes(a=(16, 4))}}}
    rules = [["^params/a$", [["data", "model"]]], ["a$", [None, "model"]], ["", []]]
    placed = sharding.shardings(tree, mesh_of(model=2), rules)
    assert placed["params"]["a"].spec == P(("data", "model"))
    assert placed["opt"]["layers"][0]["a"].spec == P(None, "model")
    assert placed["params"]["b"].spec == P()


def test_default_rules_spread_tables_and_their_optimisers():
    tree = {
        "params": {"tables": shapes(e=(16, 4)), "net": shapes(w=(3, 3))},
        "opt": {"tables": {"e": shapes(accumulator=(16,))}, "net": shapes(w=(3, 3))},
    }
    placed = sharding.shardings(tree, mesh_of(), sharding.DEFAULT_RULES)
    assert placed["params"]["tables"]["e"].spec == P(("data", "model"))
    assert placed["opt"]["tables"]["e"]["accumulator"].spec == P(("data", "model"))
    assert placed["params"]["net"]["w"].spec == placed["opt"]["net"]["w"].spec == P()


def test_all_problems_in_one_error():
    tree = {"fits": shapes(x=(16, 3)), "t": shapes(odd=(10, 3), lost=(4,), flat=())}
    rules = [["lost", [None, "data"]], ["odd|fits|flat", ["data"]]]
    with pytest.raises(ValueError, match="cannot place") as error:
        sharding.shardings(tree | {"free": shapes(y=(2,))}, mesh_of(), rules)
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 4
    assert any("free/y: no rule matches" in line for line in lines)
    assert any("t/odd:" in line and "into 8; pad 10 to a multiple" in line for line in lines)
    assert any("t/lost:" in line and "has more axes than (4,)" in line for line in lines)
    assert any("t/flat:" in line and "has more axes than ()" in line for line in lines)


def test_table_of_bytes():
    tree = shapes(table=(16, 4), net=(3, 5))
    placed = sharding.shardings(tree, mesh_of(), [["table", ["data"]], ["", []]])
    assert sorted(sharding.table(tree, placed)) == [
        ("net", (3, 5), "float32", "()", 60),
        ("table", (16, 4), "float32", "('data',)", 32),
    ]


def test_context_is_spread_and_padded():
    bank = np.arange(33, dtype=np.float32).reshape(11, 3)
    ids = np.arange(5, dtype=np.int32)
    given = {"bank": bank, "ids": ids, "scale": np.array(2.0, np.float32)}
    placed = place_context(given, mesh_of(), [["bank", ["data"]]])
    assert float(placed["scale"]) == 2.0
    assert placed["bank"].shape == (16, 3)
    np.testing.assert_array_equal(np.asarray(placed["bank"])[:11], bank)
    np.testing.assert_array_equal(np.asarray(placed["bank"])[11:], 0)
    assert placed["bank"].addressable_shards[0].data.shape == (2, 3)
    assert placed["bank"].dtype == np.float32
    np.testing.assert_array_equal(np.asarray(placed["ids"]), ids)
    assert placed["ids"].sharding.is_fully_replicated
    # Fewer rows than devices: some hold padding only.
    few = place_context({"bank": bank[:3]}, mesh_of(model=2), [["bank", [["data", "model"]]]])
    np.testing.assert_array_equal(np.asarray(few["bank"])[:3], bank[:3])
    np.testing.assert_array_equal(np.asarray(few["bank"])[3:], 0)


def test_context_that_cannot_be_placed_is_named():
    features = {"bank": np.zeros((8, 3), np.float32), "ids": np.zeros(8, np.int32)}
    with pytest.raises(ValueError, match=r"bank: .*splits shape"):
        place_context(features, mesh_of(), [["bank", [None, "data"]]])
    with pytest.raises(ValueError, match=r"bank: .*more axes than"):
        place_context(features, mesh_of(), [["bank", [None, None, "data"]]])


@pytest.mark.parametrize(("devices", "model"), [(8, 1), (8, 4), (2, 1), (1, 1)])
def test_batches_are_spread_over_data(devices, model):
    source = BatchSource({"item": np.arange(40, dtype=np.int32)}, 16, shuffle=False)
    mesh = mesh_of(devices, model)
    place = BatchPlacer(mesh, 16)
    assert place.rows == slice(0, 16)
    batch = place(source.batch(1, place.rows))
    np.testing.assert_array_equal(np.asarray(batch["item"]), np.arange(16, 32))
    assert batch["item"].sharding == NamedSharding(mesh, P("data"))
    assert batch["weight"].shape == (16,)
    parts = devices // model
    assert {s.data.shape for s in batch["item"].addressable_shards} == {(16 // parts,)}


def test_an_array_of_a_batch_may_have_fewer_rows():
    mesh = mesh_of()
    items = np.arange(24).reshape(8, 3)
    placed = BatchPlacer(mesh, 16)({"items": items, "item": np.zeros(16)})
    assert placed["items"].sharding == NamedSharding(mesh, P("data"))
    np.testing.assert_array_equal(np.asarray(placed["items"]), items)
    assert placed["item"].shape == (16,)


def test_batches_that_do_not_divide():
    with pytest.raises(ValueError, match="batch_size 12 does not divide over 8 devices"):
        BatchPlacer(mesh_of(), 12)
    assert BatchPlacer(mesh_of(model=2), 12).rows == slice(0, 12)
