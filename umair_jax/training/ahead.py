"""The update compiled for a TPU slice that is not here: what it takes of it, before it is rented.

The compiler of TPUs comes with the extra ``tpu``. It runs on Linux without a TPU, and knows the
slices by name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.data.batches import BatchSource
from umair_jax.training import state as states
from umair_jax.training.loop import Task
from umair_jax.training.optimisers import make_optimiser
from umair_jax.training.settings import FitConfig
from umair_jax.training.sharding import abstract_context
from umair_jax.training.step import TrainStep

# It asks the machine what TPU it is part of, and where it is none it asks the network.
_NOT_ON_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a compiler takes no chip that others could want
}


def slice_devices(name: str) -> Sequence[Any]:
    """The devices of a slice, each with its host, and with its place among the wires.

    Args:
        name: Such as "v5e:4x4", "v5p:2x2x1".

    Raises:
        ValueError: The compiler does not know it, or is not installed.
    """
    for variable, value in _NOT_ON_A_TPU.items():
        os.environ.setdefault(variable, value)
    try:
        return topologies.get_topology_desc(name, "tpu").devices
    except Exception as error:
        raise ValueError(
            f"topology: got {name!r}, expected a slice such as v5e:4x4, v6e:2x4, v4:2x2x2 or "
            f'v5p:2x2x1, and TPU\'s compiler, pip install -e ".[tpu]" ({error})'
        ) from error


def compile_update(task: Task, source: BatchSource, config: FitConfig, mesh: Mesh) -> Any:
    """The update of the training loop for any devices; allocates nothing on them.

    Args:
        task: What is trained.
        source: Its examples, of which one batch is read for its shapes.
        config: Options of the training.
        mesh: The devices, which need not be here.

    Returns:
        ``jax.stages.Compiled``.

    Raises:
        ValueError: Sizes do not fit the mesh, or the update does not fit into a device's memory.
    """
    optimiser = make_optimiser(config.optim, config.train.total_steps(len(source)))
    init = states.initialiser(task, optimiser, config.tables, config.train.seed)
    abstract = states.abstract_state(init, mesh, config.mesh.rules)
    step = TrainStep(
        task,
        optimiser,
        config.tables,
        mesh,
        config.train.seed,
        abstract,
        config.train.micro_batches,
    )
    spread = NamedSharding(mesh, P("data"))
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=spread)
        for name, array in source.batch(0).items()
    }
    context = abstract_context(task.context(), mesh, config.mesh.context_rules)
    try:
        return step.lower(abstract, context, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"an update does not fit ({str(error).splitlines()[0]}); take more devices, "
            "config.mesh.context_rules, a smaller batch or more train.micro_batches"
        ) from error
