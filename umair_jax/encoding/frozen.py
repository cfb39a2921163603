"""Networks with fixed weights, compiled for the devices of this host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def mesh_for(*batches: int) -> Mesh:
    """The largest number of this host's devices that divides every batch size evenly."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if all(batch % n == 0 for batch in batches))
    return jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=devices[:count])


def frozen(model: nnx.Module, mesh: Mesh, call: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `call(model, *inputs)`; the weights are as they are now, on every device.

    Args:
        model: The network.
        mesh: From `mesh_for`; batches are split over it.
        call: What is computed.

    Returns:
        A function of host arrays [B, ...] that returns device arrays at once, before they are
        computed.
    """
    split, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    state = (nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
    state = jax.device_put(state, whole)
    run = jax.jit(lambda state, *inputs: call(nnx.merge(graph, *state), *inputs))
    return lambda *inputs: run(state, *jax.device_put(inputs, split))
