"""Compiles a training for devices that are not here: does it fit, and what goes over the wires?

    python -m umair_jax.train_compile --config=configs/base.py --topology=v5e:4x4
    python -m umair_jax.train_compile --config=configs/base.py --topology=h200:8 \
        --config.train.batch_size=65536

Needs the extra `tpu` or `cuda`, and no such device. The data are prepared as for the training,
which starts there with the same config; drawings are not encoded, but for an end-to-end training.
Exit status 1: it does not fit; the compiler says by how much.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from umair_jax import jobs, settings
from umair_jax.memory import keep_freed_memory
from umair_jax.training import ahead, cost
from umair_jax.training.cost import Cost, Roofline
from umair_jax.training.sharding import make_mesh


def train_compile(config: ConfigDict, topology: str, console: Console) -> Cost:
    """Compiles the update of a config's training and prints what it costs.

    Args:
        config: As get_config() of a file in configs/ gives it.
        topology: The devices, such as "v5e:4x4" or "h200:8".
        console: Where it is printed.

    Raises:
        ValueError: The devices are not known, or what is trained does not fit them.
    """
    devices = ahead.devices_of(topology)
    with tempfile.TemporaryDirectory() as folder:
        job = jobs.assemble(config, console, blank=Path(folder))
        return _compiled(job, topology, devices, console)


def _compiled(job: jobs.Job, topology: str, devices: Sequence[Any], console: Console) -> Cost:
    mesh, batch = make_mesh(job.fit.mesh, devices), job.fit.train.batch_size
    hosts = len({device.process_index for device in devices})
    console.print(
        f"{topology}: {len(devices)} x {devices[0].device_kind} of {hosts} host(s), "
        f"mesh {dict(mesh.shape)}, batches of {batch:,}"
    )
    began = time.monotonic()
    lower = functools.partial(ahead.lower_update, job.task, job.source, job.fit)
    gpu = ahead.GPUS.get(topology.partition(":")[0])
    if gpu is None:
        found = cost.of(ahead.compiled(lower(mesh)))
        # Of what a TPU scatters into a table, XLA counts the whole table: no bytes, then.
        console.print(f"compiled in {time.monotonic() - began:.0f} s; {found.sentence()}")
        return found
    found, kernels = ahead.cost_on_gpus(lower, mesh)
    console.print(f"compiled in {time.monotonic() - began:.0f} s; {kernels} kernels; {found}")
    console.print(_limits(gpu.peak, found, batch))
    if found.memory > gpu.memory:
        raise ValueError(
            f"an update does not fit into {gpu.memory / 1e9:.0f} GB; {ahead.WHAT_TO_DO}"
        )
    return found


def _limits(peak: Roofline, found: Cost, batch: int) -> str:
    """What the published speeds allow, arithmetic and memory apart."""
    memory, tf32 = found.size / peak.bandwidth, found.flops / peak.flops
    least = max(memory, tf32 / 2)
    return (
        f"published speeds ({peak}; twice the FLOP/s in bfloat16) allow {1e3 * memory:.3g} ms for "
        f"memory, {1e3 * tf32:.3g} ms for arithmetic ({5e2 * tf32:.3g} in bfloat16): "
        f"{batch / least:,.0f} examples/s at the most, by this count"
    )


def define_flags() -> None:
    """The flags of the command line."""
    config_flags.DEFINE_config_file("config", "configs/base.py", "Python file with get_config().")
    flags.DEFINE_string("topology", "v5e:4x4", "A TPU slice; or GPUs, such as h200:8.")


def main(argv: list[str]) -> None:
    """Compiles what the flags say."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}; expected flags only, like --topology=v5e:4x4")
    # Whatever is computed on the way is computed here.
    jax.config.update("jax_platforms", "cpu")
    values = flags.FLAGS
    train_compile(settings.loaded(values.config), values.topology, Console(soft_wrap=True))


if __name__ == "__main__":
    keep_freed_memory()
    settings.run_front_door(main, define_flags)
