"""A module's parameters and statistics as safetensors: saved, loaded, compared, digested."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

SETTINGS = "config"  # the entry of a file's metadata that says what the weights are for, as JSON
# How weights may be stored; in a module they have the module's own type.
DTYPES = {name: jnp.dtype(name) for name in ("float32", "float16", "bfloat16")}


def flatten(module: nnx.Module) -> dict[str, np.ndarray]:
    """Every parameter and BatchNorm statistic on the host, by path, such as "dense/kernel"."""
    flat: dict[str, np.ndarray] = {}
    for kind in (nnx.Param, nnx.BatchStat):
        tree = nnx.to_pure_dict(nnx.state(module, kind))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            flat["/".join(str(key.key) for key in path)] = np.asarray(leaf)
    return dict(sorted(flat.items()))


def shapes(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf of `flatten`, also of a module from `nnx.eval_shape`."""
    found: dict[str, tuple[int, ...]] = {}
    for kind in (nnx.Param, nnx.BatchStat):
        tree = nnx.to_pure_dict(nnx.state(module, kind))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found["/".join(str(key.key) for key in path)] = tuple(leaf.shape)
    return dict(sorted(found.items()))


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
    problems += [
        f"dtype of {name}: got {flat[name].dtype}, expected one of {tuple(DTYPES)}"
        for name in expected
        if name in flat and flat[name].dtype not in DTYPES.values()
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


def save(
    module: nnx.Module,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the weights to a safetensors file, all or nothing.

    Args:
        module: Whose parameters and statistics.
        path: The file.
        dtype: "float32", "float16" or "bfloat16": how the weights are stored.
        metadata: Texts by name, for `read_metadata`.

    Raises:
        ValueError: The dtype is unknown, or a value is too large for it.
    """
    write(flatten(module), path, dtype=dtype, metadata=metadata)


def load(module: nnx.Module, path: str | os.PathLike[str]) -> None:
    """Reads weights that `save` wrote, in any dtype, into a module of the same configuration.

    Raises:
        ValueError: The file cannot be read, or does not fit the module.
    """
    fill(module, read(path))


def write(
    flat: Mapping[str, np.ndarray],
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """As `save`, for arrays by name."""
    if dtype not in DTYPES:
        raise ValueError(f"weights dtype: got {dtype!r}, expected one of {tuple(DTYPES)}.")
    stored, problems = {}, []
    for name, array in flat.items():
        with np.errstate(over="ignore"):
            # In C order, or safetensors would write the memory behind a transposed view.
            stored[name] = np.asarray(array, DTYPES[dtype], order="C")
        if np.isfinite(array).all() and not np.isfinite(stored[name]).all():
            problems.append(f"{name}: up to {np.abs(array).max():.3g}")
    if problems:
        raise ValueError(
            f"weights: {len(problems)} arrays have values too large for {dtype}; store them as "
            "bfloat16 or float32.\n  " + "\n  ".join(problems)
        )
    partial = Path(path).with_suffix(".partial")
    # Not save_file, which hides the file from other users of a shared folder.
    partial.write_bytes(_sorted(serialise(stored, None if metadata is None else dict(metadata))))
    os.replace(partial, path)


def _sorted(contents: bytes) -> bytes:
    """A safetensors file with its metadata in order, which the library writes in a random one."""
    start = 8 + int.from_bytes(contents[:8], "little")
    header = json.loads(contents[8:start])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + contents[start:]


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every array of a safetensors file by name, in the dtype of the file.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights: {str(path)!r} cannot be read: {error}") from error


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts that a safetensors file carries beside its arrays; empty without any.

    Raises:
        ValueError: The file cannot be read.
    """
    try:
        with safe_open(path, "numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights: {str(path)!r} cannot be read: {error}") from error


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings of the module that a file's weights are for; empty where it does not say.

    Raises:
        ValueError: The file cannot be read, or what it says are no settings.
    """
    recorded = read_metadata(path).get(SETTINGS, "{}")
    try:
        settings = json.loads(recorded)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(
            f"{path}: its metadata {SETTINGS!r} are not settings as JSON: {recorded!r}"
        )
    return settings


def digest(module: nnx.Module, config: Any) -> str:
    """SHA-256 of a configuration and all weights: two encoders with one digest are equal."""
    total = hashlib.sha256(repr(config).encode())
    for name, array in flatten(module).items():
        total.update(f"{name} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def fill_nested(module: nnx.Module, kind: type[nnx.Variable], values: Any) -> None:
    """Gives a module what was trained.

    Args:
        module: With variables of the kind, of the shapes of `values`.
        kind: nnx.Param or nnx.BatchStat.
        values: Nested dicts of arrays, on any mesh; the module gets copies on one device.
    """
    state = nnx.state(module, kind)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, jax.device_get(values)))
    nnx.update(module, state)
