"""The update compiled for devices that are not here: what it takes of them, before they are rented.

The compilers of TPUs and of NVIDIA's GPUs come with the extras ``tpu`` and ``cuda``. They run on
Linux without such a device. TPU slices are known by name; GPUs are described here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.data.batches import BatchSource
from umair_jax.training import cost, hlo
from umair_jax.training import state as states
from umair_jax.training.cost import Cost, Roofline
from umair_jax.training.loop import Task
from umair_jax.training.optimisers import make_optimiser
from umair_jax.training.settings import FitConfig
from umair_jax.training.sharding import MeshConfig, abstract_context, check_batch_size, make_mesh
from umair_jax.training.step import TrainStep

WHAT_TO_DO = (
    "take more devices, config.mesh.context_rules, a smaller batch or more train.micro_batches"
)
# It asks the machine what TPU it is part of, and where it is none it asks the network.
_NOT_ON_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a compiler takes no chip that others could want
}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as XLA's compiler wants it described, and what its maker says it reaches.

    Attributes:
        name: As NVIDIA's driver calls it.
        compute_capability: (major, minor).
        cores: Streaming multiprocessors.
        lanes: float32 units of each.
        shared_memory: Bytes of each.
        l2_cache: Bytes.
        clock_ghz: Boost clock.
        memory: Bytes.
        peak: TF32 products (float32 ones, as JAX computes them there) without sparsity, and memory;
            bfloat16 ones are twice as fast.
    """

    name: str
    compute_capability: tuple[int, int]
    cores: int
    lanes: int
    shared_memory: int
    l2_cache: int
    clock_ghz: float
    memory: int
    peak: Roofline

    @property
    def target(self) -> str:
        """The description, in the text form of XLA's GpuTargetConfigProto."""
        major, minor = self.compute_capability
        return f"""
            platform_name: "CUDA"
            device_description_str: "{self.name}"
            dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
            gpu_device_info {{
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              core_count: {self.cores} fpus_per_core: {self.lanes}
              clock_rate_ghz: {self.clock_ghz}
              memory_bandwidth: {int(self.peak.bandwidth)} device_memory_size: {self.memory}
              l2_cache_size: {self.l2_cache}
              shared_memory_per_core: {self.shared_memory}
              shared_memory_per_block_optin: {self.shared_memory - 1024}
              shared_memory_per_block: 49152
              threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
            }}"""


GPUS = {
    "a100": Gpu(
        *("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 167_936, 40 * 2**20, 1.41, 80 * 10**9),
        peak=Roofline(156e12, 2.039e12),
    ),
    "h100": Gpu(
        *("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 233_472, 50 * 2**20, 1.98, 80 * 10**9),
        peak=Roofline(494e12, 3.35e12),
    ),
    "h200": Gpu(
        *("NVIDIA H200", (9, 0), 132, 128, 233_472, 50 * 2**20, 1.98, 141 * 10**9),
        peak=Roofline(494e12, 4.8e12),
    ),
}


def devices_of(topology: str) -> Sequence[Any]:
    """The devices of a TPU slice or of a machine with GPUs, each with its host.

    Args:
        topology: Such as "v5e:4x4", "v5p:2x2x1"; or "h200" for one GPU, "h200:8" for eight.

    Raises:
        ValueError: The compiler does not know it, or is not installed.
    """
    kind, _, count = topology.partition(":")
    try:
        if kind in GPUS:
            return topologies.get_topology_desc(
                platform="cuda",
                target_config=GPUS[kind].target,
                topology=f"1x1x{int(count or 1)}",
            ).devices
        for variable, value in _NOT_ON_A_TPU.items():
            os.environ.setdefault(variable, value)
        devices = topologies.get_topology_desc(topology, "tpu").devices
        if any(device.core_on_chip for device in devices):
            raise ValueError("it is described by cores of chips, of which JAX makes no mesh")
        return devices
    except Exception as error:
        extra = "cuda" if kind in GPUS else "tpu"
        raise ValueError(
            f"topology: got {topology!r}, expected a TPU slice such as v5e:4x4 or v5p:2x2x1, or "
            f"GPUs such as h200:8 (there are {', '.join(GPUS)}), and their compiler, "
            f'pip install -e ".[{extra}]" ({error})'
        ) from error


def cost_on_gpus(lower: Callable[..., Any], mesh: Mesh) -> tuple[Cost, int]:
    """The cost of a program for GPUs, a device each, and its kernels; see :mod:`hlo`.

    XLA counts neither what libraries compute there nor what they move: operations are those of
    the program before XLA saves any, bytes those of its kernels.

    Args:
        lower: Lowers it for a mesh, and for other platforms than the mesh's where they are named.
        mesh: The GPUs.
    """
    program = compiled(lower(mesh), gpu=True)
    kernels = hlo.kernels(program.as_text())
    here = make_mesh(MeshConfig(), jax.devices("cpu")[:1])
    flops = float(lower(here, ("cuda",)).cost_analysis()["flops"]) / mesh.size
    found = dataclasses.replace(cost.of(program), flops=flops, size=float(kernels.size))
    return found, kernels.count


def lower_update(
    task: Task,
    source: BatchSource,
    config: FitConfig,
    mesh: Mesh,
    platforms: tuple[str, ...] | None = None,
) -> Any:
    """The update of the training loop for any devices, before it is compiled.

    Args:
        task: What is trained.
        source: Its examples, of which one batch is read for its shapes.
        config: Options of the training.
        mesh: The devices, which need not be here.
        platforms: What to lower it for, such as ("cuda",); None = the devices' own.

    Returns:
        ``jax.stages.Lowered``.

    Raises:
        ValueError: Sizes do not fit the mesh.
    """
    check_batch_size(config.train.batch_size, mesh)
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
    return step.lower(abstract, context, batch, platforms)


def compiled(lowered: Any, gpu: bool = False) -> Any:
    """The program (``jax.stages.Compiled``) of what is lowered; allocates nothing on the devices.

    Args:
        lowered: What :func:`lower_update` gave.
        gpu: Whether it is for GPUs.

    Raises:
        ValueError: It does not fit into a device's memory, by the count of TPUs' compiler.
    """
    try:
        # Which of several kernels for a product is the fastest, is tried out where there is a GPU.
        # Without, XLA takes its own, of which it finds none for some shapes; cuBLAS has all.
        options = {"xla_gpu_enable_triton_gemm": False} if gpu else None
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"an update does not fit ({str(error).splitlines()[0]}); {WHAT_TO_DO}"
        ) from error
