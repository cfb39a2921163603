"""Vectors as they are on the devices: float32, bfloat16, or int8 with a scale for each."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

DTYPES = {"float32": np.float32, "bfloat16": jnp.bfloat16, "int8": np.int8}
# Of a vector of int8: what each of its numbers is to be multiplied with, by the vector's name.
SCALE = "_scale"


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
