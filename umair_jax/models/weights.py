"""A module's parameters and statistics as safetensors: saved, loaded, compared, digested."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise


def flatten(module: nnx.Module) -> dict[str, np.ndarray]:
    """Every parameter and BatchNorm statistic on the host, by path, such as "dense/kernel"."""
    flat: dict[str, np.ndarray] = {}
    for kind in (nnx.Param, nnx.BatchStat):
        tree = nnx.to_pure_dict(nnx.state(module, kind))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            flat["/".join(str(key.key) for key in path)] = np.asarray(leaf)
    return dict(sorted(flat.items()))


def fill(module: nnx.Module, flat: Mapping[str, np.ndarray]) -> None:
    """Writes arrays into the module's parameters and statistics, completely both ways.

    Raises:
        ValueError: A name is missing or unknown, or a shape differs; lists all of them.
    """
    expected = flatten(module)
    problems = [f"missing: {name}" for name in expected if name not in flat]
    problems += [f"unknown: {name}" for name in flat if name not in expected]
    problems += [
        f"shape of {name}: got {flat[name].shape}, expected {expected[name].shape}"
        for name in expected
        if name in flat and flat[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError(
            f"weights do not fit {type(module).__name__}: {len(problems)} problems; check that "
            "they were made with the same configuration.\n  " + "\n  ".join(problems)
        )
    for kind in (nnx.Param, nnx.BatchStat):
        state = nnx.state(module, kind)
        tree = nnx.to_pure_dict(state)
        filled = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(
                flat["/".join(str(key.key) for key in path)], leaf.dtype
            ),
            tree,
        )
        nnx.replace_by_pure_dict(state, filled)
        nnx.update(module, state)


def save(module: nnx.Module, path: str | os.PathLike[str]) -> None:
    """Writes the weights to a safetensors file, all or nothing."""
    partial = Path(path).with_suffix(".partial")
    # Not save_file, which hides the file from other users of a shared folder.
    partial.write_bytes(serialise(flatten(module)))
    os.replace(partial, path)


def load(module: nnx.Module, path: str | os.PathLike[str]) -> None:
    """Reads weights that `save` wrote into a module of the same configuration.

    Raises:
        ValueError: The file cannot be read, or does not fit the module.
    """
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights: {str(path)!r} cannot be read: {error}") from error
    fill(module, flat)


def digest(module: nnx.Module, config: Any) -> str:
    """SHA-256 of a configuration and all weights: two encoders with one digest are equal."""
    total = hashlib.sha256(repr(config).encode())
    for name, array in flatten(module).items():
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
