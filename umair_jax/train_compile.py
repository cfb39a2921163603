"""Compiles a training for a TPU slice that is not here: does it fit, and what goes over the wires?

    python -m umair_jax.train_compile --config=configs/base.py --topology=v5e:4x4
    python -m umair_jax.train_compile --config=configs/image_tags.py --topology=v6e:2x4 \
        --config.train.batch_size=1024

Needs the extra `tpu`, and no TPU. The data are prepared as for the training, which starts on the
slice with the same config. Exit status 1: it does not fit; the compiler says by how much.
"""

from __future__ import annotations

import time

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from umair_jax import jobs, settings
from umair_jax.memory import keep_freed_memory
from umair_jax.training import ahead, cost
from umair_jax.training.cost import Cost
from umair_jax.training.sharding import make_mesh


def train_compile(config: ConfigDict, topology: str, console: Console) -> Cost:
    """Compiles the update of a config's training and prints what it costs.

    Args:
        config: As get_config() of a file in configs/ gives it.
        topology: The slice, such as "v5e:4x4".
        console: Where it is printed.

    Raises:
        ValueError: The slice is not known, or what is trained does not fit it.
    """
    devices = ahead.slice_devices(topology)
    job = jobs.assemble(config, console)
    mesh = make_mesh(job.fit.mesh, devices)
    hosts = len({device.process_index for device in devices})
    console.print(
        f"{topology}: {len(devices)} devices ({devices[0].device_kind}) of {hosts} hosts, "
        f"mesh {dict(mesh.shape)}, batches of {job.fit.train.batch_size:,}"
    )
    began = time.monotonic()
    compiled = ahead.compile_update(job.task, job.source, job.fit, mesh)
    found = cost.of(compiled)
    # Without bytes: of what a TPU scatters into a table, XLA counts the whole table.
    console.print(f"compiled in {time.monotonic() - began:.0f} s; {found.sentence()}")
    return found


def define_flags() -> None:
    """The flags of the command line."""
    config_flags.DEFINE_config_file("config", "configs/base.py", "Python file with get_config().")
    flags.DEFINE_string("topology", "v5e:4x4", "The slice: its kind of TPU, and its shape.")


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
