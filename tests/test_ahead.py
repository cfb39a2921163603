import dataclasses
import importlib.util
import io

import jax
import jax.numpy as jnp
import pytest
import small_run
import toy_task
from ml_collections import ConfigDict
from rich.console import Console
from test_step import B, Setting

from umair_jax.data.batches import BatchSource
from umair_jax.train_compile import train_compile
from umair_jax.training import ahead, cost, stored_rows
from umair_jax.training.optimisers import OptimConfig
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import MeshConfig, make_mesh
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")

needs_tpus = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason='the compiler of TPUs comes with the extra "tpu"',
)
needs_gpus = pytest.mark.skipif(
    not any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)),
    reason='the compiler of GPUs comes with the extra "cuda"',
)
FIT = FitConfig(
    train=TrainConfig(batch_size=B, epochs=1.0),
    optim=OptimConfig("sgd", 0.1),
    tables=TableOptimConfig("sgd", 0.1),
)


def compiled(mesh, task=None, fit=FIT):
    source = BatchSource(toy_task.columns(200), B, seed=1)
    return ahead.compiled(ahead.lower_update(task or toy_task.ToyTask(), source, fit, mesh))


@pytest.mark.parametrize(("devices", "model"), [(1, 1), (8, 2)])
def test_what_is_compiled_of_shapes_is_what_the_loop_runs(devices, model):
    setting = Setting(devices, model)
    batch = setting.place(BatchSource(toy_task.columns(200), B, seed=1).batch(0))
    run = setting.step.lower(setting.state, setting.context, batch).compile()
    found = compiled(make_mesh(MeshConfig(model=model), jax.devices()[:devices]))
    assert cost.of(found) == cost.of(run)
    state, _ = found(setting.state, setting.context, batch, jax.random.key_data(jax.random.key(0)))
    assert int(state["step"]) == 1


def test_a_slice_that_is_not_known_and_what_to_do():
    with pytest.raises(
        ValueError, match=r"topology: got 'v5e:banana', expected a TPU slice such as"
    ):
        train_compile(ConfigDict(), "v5e:banana", Console(file=io.StringIO()))


@pytest.mark.parametrize(
    "topology",
    [pytest.param("v5e:4x4", marks=needs_tpus), pytest.param("h200:8", marks=needs_gpus)],
)
@pytest.mark.parametrize("dtype", stored_rows.DTYPES)
def test_tables_elsewhere_are_updated_in_place_and_never_sent(topology, dtype):
    """Neither traffic nor memory beside the state grows with the rows, on four hosts or on one."""
    mesh = make_mesh(MeshConfig(), ahead.devices_of(topology))
    fit = dataclasses.replace(FIT, tables=TableOptimConfig("sgd", 0.1, dtype=dtype))
    rows = 2**24, 2**30
    low, high = (compiled(mesh, toy_task.TallTask(n), fit) for n in rows)
    sent = [cost.of(made).collectives for made in (low, high)]
    if dtype == "int8":  # of which some programs send a number as four bytes
        sent = [sum(each.size for each in each_one) for each_one in sent]
        assert sent[1] <= sent[0]
    else:
        assert sent[0] == sent[1]
    share = rows[1] * toy_task.WIDTH // mesh.size  # at a byte a weight
    memory = high.memory_analysis()
    assert memory.alias_size_in_bytes >= share * jnp.dtype(dtype).itemsize
    assert memory.temp_size_in_bytes < share * jnp.dtype(dtype).itemsize / 100


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size 16 does not divide over 3 devices"):
        compiled(make_mesh(MeshConfig(), jax.devices()[:3]))


@needs_tpus
def test_what_does_not_fit_is_refused_before_anything_is_rented():
    mesh = make_mesh(MeshConfig(), ahead.devices_of("v5e:2x2"))
    fit = dataclasses.replace(FIT, tables=TableOptimConfig("adagrad", 0.1))
    with pytest.raises(ValueError, match=r"does not fit .*exceeds available HBM.*; take more dev"):
        compiled(mesh, toy_task.TallTask(2**31 - 64), fit)


@pytest.mark.parametrize("topology", ["v5e:2x2", "h200:4"])
def test_what_is_said_of_a_run_elsewhere(topology, monkeypatch):
    """Four devices of this machine stand in for those that are not here."""
    job = small_run.loaded().job
    monkeypatch.setattr("umair_jax.jobs.assemble", lambda config, console, blank: job)
    monkeypatch.setattr(ahead, "devices_of", lambda topology: jax.devices()[:4])
    console = Console(file=io.StringIO(), width=1000)
    found = train_compile(ConfigDict(), topology, console)
    said = console.file.getvalue().splitlines()
    assert f"4 x cpu of 1 host(s), mesh {{'data': 4, 'model': 1}}, batches of {64}" in said[0]
    assert f"{len(found.collectives)} collectives of " in said[1]
    assert found.memory > 0
    if topology == "v5e:2x2":
        assert len(said) == 2
        return
    peak = ahead.GPUS["h200"].peak
    least = max(found.size / peak.bandwidth, found.flops / peak.flops / 2)
    assert found.flops > 0
    assert f"{64 / least:,.0f} examples/s at the most" in said[2]
    small = dataclasses.replace(ahead.GPUS["h200"], memory=found.memory - 1)
    monkeypatch.setitem(ahead.GPUS, "h200", small)
    with pytest.raises(ValueError, match=r"does not fit into .* GB; take more devices"):
        train_compile(ConfigDict(), topology, console)
