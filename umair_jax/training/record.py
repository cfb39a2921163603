"""The record of a run's configuration, ``config.json``: what a run that goes on must agree with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

CONFIG_FILE = "config.json"

# What may differ when a run goes on. It changes neither the model nor the examples and their order;
# another length changes the schedule of what is left, as a run that shall be longer asks for.
MAY_CHANGE = (
    "log",
    "eval",
    "data.root",
    "mesh",
    "hosts",
    "checkpoint.keep",
    "checkpoint.restore_best",
    "train.steps",
    "train.epochs",
    "train.log_every_steps",
    "train.eval_every_steps",
    "train.checkpoint_every_steps",
    "train.read_threads",
)


def check_config(
    workdir: Path,
    config: Mapping[str, Any],
    made_from: Mapping[str, str] | None = None,
    may_change: Sequence[str] = MAY_CHANGE,
) -> None:
    """Compares a configuration, and the data, with those that the run in ``workdir`` began with.

    Args:
        workdir: directory of the run; without a ``config.json`` nothing is compared.
        config: resolved configuration, JSON-able nested dictionaries.
        made_from: name -> digest of what the examples are made from.
        may_change: dotted keys (or sections) that may differ.

    Raises:
        ValueError: other keys or digests differ; each is listed with both values.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    before = _flat(record["config"])
    now = _flat(json.loads(json.dumps(config)))
    missing = "(absent)"
    lines = [
        f"  {key}: {before.get(key, missing)!r} in the run, {now.get(key, missing)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key, missing) != now.get(key, missing)
        and not any(key == free or key.startswith(free + ".") for free in may_change)
    ]
    if lines:
        raise ValueError(
            f"{workdir} holds a run with another configuration:\n"
            + "\n".join(lines)
            + "\nRestore these values, name another workdir, or restart the run "
            "(its checkpoints are then deleted)"
        )
    other = changed(record, made_from or {})
    if other:
        raise ValueError(
            f"{workdir} holds a run on other data: {' and '.join(other)} changed since it began. "
            "Bring the old data back, name another workdir, or restart the run (its checkpoints "
            "are then deleted)"
        )


def changed(record: Mapping[str, Any], made_from: Mapping[str, str]) -> list[str]:
    """Of what the examples of a run were made from, what is another one now; [] = nothing."""
    had = record.get("made_from", {})
    return [name for name in made_from if name in had and had[name] != made_from[name]]


def write_config(
    workdir: Path, config: Mapping[str, Any], made_from: Mapping[str, str] | None = None
) -> None:
    """Writes ``config.json``: the resolved configuration, data, versions, devices; atomic."""
    names = ("umair_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    devices = jax.devices()
    record = {
        "config": config,
        "made_from": dict(made_from or {}),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in names},
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "hosts": jax.process_count(),
        },
    }
    path = Path(workdir) / CONFIG_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of a resolved configuration, hexadecimal."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
