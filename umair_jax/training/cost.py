"""What one update costs: operations, bytes, traffic between devices, and how near it is to a limit.

The limit is the roofline: with I operations for each byte that is moved (the arithmetic intensity),
no more than min(P, I * B) operations a second, where P is what this machine reaches in a large
matrix product and B in a copy; both are measured here and now.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp

from umair_jax.training.hlo import Collective, collectives

_MATRIX, _COPIED, _ROUNDS = 2048, 2**25, 5


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one update on each device, as XLA counts it.

    Attributes:
        flops: Operations.
        size: Bytes read and written by all of its parts; caches may save some.
        memory: Bytes that arguments, results and what is between take at most, where known.
        collectives: What goes between devices.
    """

    flops: float
    size: float
    memory: int
    collectives: tuple[Collective, ...]

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.size if self.size else 0.0

    def values(self) -> dict[str, float]:
        """As numbers by name, for a line of metrics."""
        found = {
            "flops": self.flops,
            "bytes": self.size,
            "flops_per_byte": self.intensity,
            "memory_bytes": float(self.memory),
            "collectives": float(len(self.collectives)),
            "collective_bytes": float(sum(each.size for each in self.collectives)),
        }
        for kind in sorted({each.kind for each in self.collectives}):
            mine = [each.size for each in self.collectives if each.kind == kind]
            found[f"{kind.replace('-', '_')}_bytes"] = float(sum(mine))
        return found

    def __str__(self) -> str:
        return self.sentence(f", {_scaled(self.size, 'B')} moved ({self.intensity:.1f} FLOP/B)")

    def sentence(self, moved: str = "") -> str:
        """In words; without the bytes that are moved, unless something is said of them."""
        between = "nothing between devices"
        if self.collectives:
            kinds = sorted({each.kind for each in self.collectives})
            total = sum(each.size for each in self.collectives)
            between = (
                f"{len(self.collectives)} collectives of {_scaled(total, 'B')} ({', '.join(kinds)})"
            )
        return (
            f"an update on each device: {_scaled(self.flops, 'FLOP')}{moved}, "
            f"{_scaled(self.memory, 'B')} of memory, {between}"
        )


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What a device reaches.

    Attributes:
        flops: Operations a second in a float32 matrix product.
        bandwidth: Bytes a second in a copy, read and written.
    """

    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return f"{_scaled(self.flops, 'FLOP/s')} and {_scaled(self.bandwidth, 'B/s')}"

    def share(self, cost: Cost, seconds: float) -> float:
        """How near an update that takes so long is to the limit; 1 = at it; NaN = not counted."""
        if not cost.flops:
            return float("nan")
        return cost.flops / seconds / min(self.flops, cost.intensity * self.bandwidth)


def of(compiled: Any) -> Cost:
    """The cost of what ``jax.jit(...).lower(...).compile()`` gives."""
    counted = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    taken = 0
    if memory is not None:
        taken = memory.argument_size_in_bytes + memory.output_size_in_bytes
        taken += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return Cost(
        float(counted.get("flops", 0.0)),
        float(counted.get("bytes accessed", 0.0)),
        int(taken),
        collectives(compiled.as_text()),
    )


def measured_roofline() -> Roofline:
    """Measures one device of this process, in a second or two."""
    square = jnp.ones((_MATRIX, _MATRIX), jnp.float32)
    flat = jnp.ones(_COPIED, jnp.float32)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    return Roofline(
        2.0 * _MATRIX**3 / _seconds(lambda: product(square, square)),
        2.0 * flat.nbytes / _seconds(lambda: copy(flat)),
    )


def _seconds(call: Any) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return min(times)


def _scaled(value: float | int, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:,.3g} T{unit}"
