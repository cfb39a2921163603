"""Programs as StableHLO: any batch size, any of the platforms, nothing of this package needed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

PLATFORMS = ("cpu", "cuda", "tpu")
BATCH = "B"
_LOCATIONS = "jax_traceback_in_locations_limit"
Shapes = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Exported:
    """One program.

    Attributes:
        blob: What jax.export.deserialize takes.
        weights: Names of the weights that it takes, the only ones that it reads.
        inputs: What it takes besides, by argument and name, its first dimension the batch.
        outputs: What it gives, by name.
        calling_convention: Version that the reading JAX has to know.
    """

    blob: bytes
    weights: tuple[str, ...]
    inputs: dict[str, Shapes]
    outputs: Shapes
    calling_convention: int


def exported(
    program: Callable[..., dict[str, jax.Array]],
    weights: Mapping[str, np.ndarray],
    **inputs: Mapping[str, Any],
) -> Exported:
    """Exports a program.

    Args:
        program: (weights, one argument for each of `inputs`) -> arrays by name.
        weights: All that it may read, by name.
        **inputs: Examples of what it takes besides, or their shapes [B, ...], by name; all of the
            same batch.
    """
    every = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in weights.items()}
    # One symbol for all, so that their batches are one and the same.
    (batch,) = export.symbolic_shape(BATCH)
    shapes = {name: _of_batch(side, batch) for name, side in inputs.items()}
    read = _read(program, every, shapes)

    def program_of_read(given: Mapping[str, jax.Array], *sides: Any) -> dict[str, jax.Array]:
        # Zeros in the places of all others: nothing reads them, and none is ever made.
        rest = {n: jnp.zeros(s.shape, s.dtype) for n, s in every.items() if n not in given}
        return program({**rest, **given}, *sides)

    with _without_locations():
        found = export.export(jax.jit(program_of_read), platforms=PLATFORMS)(read, *shapes.values())
    outputs = jax.tree.unflatten(found.out_tree, found.out_avals)
    return Exported(
        blob=bytes(found.serialize()),
        weights=tuple(read),
        inputs=shapes,
        outputs={n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in outputs.items()},
        calling_convention=found.calling_convention_version,
    )


@contextlib.contextmanager
def _without_locations() -> Iterator[None]:
    """Keeps files and lines of this machine out of what is lowered; equal programs, equal bytes."""
    before = getattr(jax.config, _LOCATIONS)
    jax.config.update(_LOCATIONS, 0)
    try:
        yield
    finally:
        jax.config.update(_LOCATIONS, before)


def _of_batch(arrays: Mapping[str, Any], batch: Any) -> Shapes:
    return {
        name: jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype)
        for name, array in arrays.items()
    }


def _read(program: Callable[..., Any], every: Shapes, shapes: Mapping[str, Shapes]) -> Shapes:
    """The weights that the program reads: those that an export for one batch size keeps."""
    closed = [_of_batch(side, 2) for side in shapes.values()]
    found = export.export(jax.jit(program), platforms=PLATFORMS[:1])(every, *closed)
    # The weights come first, in the order of a dictionary's leaves.
    kept = set(found.module_kept_var_idx)
    return {name: every[name] for k, name in enumerate(sorted(every)) if k in kept}
