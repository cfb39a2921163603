"""Vectors as batches look them up: float32, bfloat16, or int8 with a scale; in memory or files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

DTYPES = {"float32": np.float32, "bfloat16": jnp.bfloat16, "int8": np.int8}
# Of a vector of int8: what each of its numbers is to be multiplied with, by the vector's name.
SCALE = "_scale"
_INDEX = "index.json"


def stored(vectors: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Vectors in the type that they have on the devices, with their scales where it is int8."""
    if dtype != "int8":
        return {name: array.astype(DTYPES[dtype]) for name, array in vectors.items()}
    found: dict[str, np.ndarray] = {}
    for name, array in vectors.items():
        scale = np.abs(array).max(axis=1) / 127
        steps = array / np.where(scale > 0, scale, 1)[:, None]
        found[name] = np.round(steps).astype(np.int8)
        found[name + SCALE] = scale.astype(np.float32)
    return found


def restored(
    context: Mapping[str, np.ndarray], name: str, rows: Int32[np.ndarray, " R"]
) -> Float32[np.ndarray, "R D"]:
    """Some rows of what `stored` made, as numbers again."""
    found = context[name][rows].astype(np.float32)
    scale = context.get(name + SCALE)
    return found if scale is None else found * scale[rows, None]


def mapped(folder: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays in files, opened without reading them.

    Args:
        folder: Where they are. What a finished call has left there is taken as it is, and
            `arrays` is not read; its name must tell all that they depend on.
        arrays: Name and array, of any type; each is written before the next is asked for.

    Returns:
        The arrays, read only; the system reads the pages that are used, and forgets them where
        memory is short.
    """
    if not (folder / _INDEX).exists():
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        index: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name, array in arrays:
            # As bytes: no file format of NumPy knows bfloat16.
            np.ascontiguousarray(array).tofile(partial / name)
            index[name] = array.dtype.name, array.shape
        (partial / _INDEX).write_text(json.dumps(index))
        try:
            partial.rename(folder)
        except OSError:
            shutil.rmtree(partial)  # another process was faster
    index = json.loads((folder / _INDEX).read_text())
    return {
        name: np.memmap(folder / name, jnp.dtype(kind), mode="r", shape=tuple(shape))
        for name, (kind, shape) in index.items()
    }
