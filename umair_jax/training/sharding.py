"""Where arrays live: a mesh with the axes ``data`` and ``model``, and rules from paths to specs.

A rule is a pair ``(regular expression, spec)``; the first that matches a path anywhere decides. A
spec is what a config can hold: one entry for each leading axis of the array, None, the name of a
mesh axis, or a list of names. The empty spec keeps a copy on every device.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "model")

Rules = Sequence[Sequence[Any]]
Tree = Any  # nested dictionaries of arrays

DEFAULT_RULES: tuple[tuple[str, tuple], ...] = (
    # Rows of tables and of their optimiser's state: over every device there is.
    (r"^(params|opt)/tables/", (("data", "model"),)),
    (r"", ()),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The grid of devices and what is spread over it.

    Attributes:
        data: devices along the batch; -1 takes all that ``model`` leaves.
        model: devices along ``model``, over which table rows (and whatever the rules say) spread.
        rules: (regular expression, spec) pairs for the paths of the training state, first match
            wins; see the module's docstring.
        context_rules: the same for the arrays that a task keeps on the devices (feature bank).
    """

    data: int = -1
    model: int = 1
    rules: tuple[Any, ...] = DEFAULT_RULES
    context_rules: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Checks the sizes and the rules."""
        if self.model < 1 or (self.data < 1 and self.data != -1):
            raise ValueError(
                f"mesh sizes must be 1 or more (data may be -1: all that is left), "
                f"got data={self.data}, model={self.model}"
            )
        for rule in (*self.rules, *self.context_rules):
            pair = isinstance(rule, tuple | list) and len(rule) == 2
            if not pair or not isinstance(rule[0], str):
                raise ValueError(f"a sharding rule is (regular expression, spec), got {rule!r}")
            try:
                re.compile(rule[0])
            except re.error as error:
                raise ValueError(
                    f"sharding rule {rule[0]!r} is no regular expression: {error}"
                ) from error
            spec_of(rule[1])


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices of all hosts (or over the given ones).

    Raises:
        ValueError: the devices cannot be arranged as asked.
    """
    devices = list(jax.devices()) if devices is None else list(devices)
    data = len(devices) // config.model if config.data == -1 else config.data
    if data * config.model != len(devices):
        raise ValueError(
            f"mesh of data={config.data} x model={config.model} does not fit {len(devices)} "
            f"devices; make the product {len(devices)}, or leave data at -1"
        )
    # By position: the names of the first two arguments changed between releases of JAX.
    mesh = jax.make_mesh((data, config.model), AXES, devices=devices)
    return Mesh(hosts_together(mesh.devices), AXES, axis_types=(AxisType.Auto,) * 2)


def fitting(config: MeshConfig, devices: int) -> MeshConfig:
    """The same mesh, or, where so many devices do not make it, one that spreads batches alone."""
    if devices % config.model or config.data not in (-1, devices // config.model):
        return dataclasses.replace(config, data=-1, model=1)
    return config


def hosts_together(devices: np.ndarray) -> np.ndarray:
    """The same grid with the devices of a host one after the other, else in the same order.

    JAX lays the devices of a TPU slice along the wires between them: on a 4 x 4 slice a row of the
    mesh leaves a host and comes back to it. A host reads one run of the examples of each batch.
    """
    flat = sorted(devices.flat, key=lambda device: device.process_index)
    grid = np.empty(len(flat), dtype=object)
    grid[:] = flat
    return grid.reshape(devices.shape)


def spec_of(entries: Sequence[Any]) -> P:
    """A PartitionSpec from what a config holds, e.g. ``[["data", "model"], None]``.

    Raises:
        ValueError: an axis that the mesh does not have, or what is no spec at all.
    """
    if not isinstance(entries, tuple | list):
        raise ValueError(f"a spec is a list with an entry for each axis, got {entries!r}")
    parts = []
    for entry in entries:
        if not isinstance(entry, tuple | list | str | None):
            raise ValueError(f"an axis is spread by names of mesh axes or None, got {entry!r}")
        names = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        for name in names:
            if name not in AXES:
                raise ValueError(f"unknown mesh axis {name!r} in spec {entries!r}; allowed: {AXES}")
        parts.append(None if entry is None else entry if isinstance(entry, str) else names)
    return P(*parts)


def path_of(keys: Sequence[Any]) -> str:
    """``params/net/dense/kernel`` from JAX's key path."""
    return "/".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in keys)


def shardings(tree: Tree, mesh: Mesh, rules: Rules) -> Tree:
    """A NamedSharding for every leaf, by the first rule that matches its path.

    Raises:
        ValueError: a leaf that no rule matches, or one that the spec does not divide evenly; all
            of them are named.
    """
    problems: list[str] = []

    def place(keys: Any, leaf: Any) -> NamedSharding:
        path, shape = path_of(keys), tuple(leaf.shape)
        found = _first_match(rules, path)
        if found is None:
            problems.append(f"{path}: no rule matches; end the rules with ['', []]")
            return NamedSharding(mesh, P())
        spec = spec_of(found[1])
        if len(spec) > len(shape):
            problems.append(f"{path}: {spec} (rule {found[0]!r}) has more axes than {shape}")
            return NamedSharding(mesh, P())
        for size, parts in zip(shape, _parts(spec, mesh), strict=False):
            if size % parts:
                problems.append(
                    f"{path}: {spec} (rule {found[0]!r}) splits shape {shape} into {parts}; "
                    f"pad {size} to a multiple, or change the rule"
                )
        return NamedSharding(mesh, spec)

    placed = jax.tree_util.tree_map_with_path(place, tree)
    if problems:
        raise ValueError("cannot place these on the mesh:\n  " + "\n  ".join(problems))
    return placed


def abstract_context(
    context: Mapping[str, np.ndarray], mesh: Mesh, rules: Rules = ()
) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes that :func:`place_context` gives, each with its sharding."""
    rules = (*rules, ("", ()))
    shapes = {}
    for name, array in context.items():
        shape, parts = list(array.shape), _parts(spec_of(_first_match(rules, name)[1]), mesh)
        if shape and parts:
            shape[0] += -shape[0] % parts[0]
        shapes[name] = jax.ShapeDtypeStruct(shape, array.dtype)
    placed = shardings(shapes, mesh, rules)
    return {
        name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=placed[name])
        for name, shape in shapes.items()
    }


def place_context(
    context: Mapping[str, np.ndarray], mesh: Mesh, rules: Rules = ()
) -> dict[str, jax.Array]:
    """Puts a task's fixed arrays on the mesh, once.

    Every host holds the whole arrays and uploads its share. An array whose rows a rule spreads is
    padded with zero rows up to a multiple of the devices: rows are only ever read by number. The
    whole array is never copied on the host.

    Raises:
        ValueError: arrays that their rules do not fit; all of them are named.
    """
    shapes = abstract_context(context, mesh, rules)

    def part(name: str, where: Any) -> np.ndarray:
        found, wanted = np.asarray(context[name][where]), shapes[name].shape
        sizes = [len(range(*w.indices(size))) for w, size in zip(where, wanted, strict=True)]
        missing = [(0, size - had) for size, had in zip(sizes, found.shape, strict=True)]
        return np.pad(found, missing) if found.size < np.prod(sizes, dtype=int) else found

    return {
        name: jax.make_array_from_callback(
            shape.shape, shape.sharding, functools.partial(part, name)
        )
        for name, shape in shapes.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the data axis does not divide."""
    if batch_size % mesh.shape["data"]:
        raise ValueError(
            f"batch_size {batch_size} does not divide over {mesh.shape['data']} devices along "
            f"'data'; use a multiple"
        )


class BatchPlacer:
    """Puts batches on the mesh: spread over ``data``, one share a host.

    Attributes:
        rows: the part of each global batch that this host must deliver.
    """

    def __init__(self, mesh: Mesh, batch_size: int) -> None:
        """Finds this host's share.

        Raises:
            ValueError: the data axis does not divide the batch.
        """
        check_batch_size(batch_size, mesh)
        self._sharding = NamedSharding(mesh, P("data"))
        self._batch_size = batch_size
        parts = self._sharding.addressable_devices_indices_map((batch_size,)).values()
        bounds = [part[0].indices(batch_size) for part in parts if part is not None]
        self.rows = slice(min(low for low, _, _ in bounds), max(high for _, high, _ in bounds))

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Global arrays [B, ...] from this host's rows of them.

        An array may have fewer rows than the batch (one a distinct item, say), as long as the data
        axis divides them; this host then gives the same share of them as of the batch.
        """
        share = self.rows.stop - self.rows.start
        # With several hosts JAX takes this for a transfer in passing, which the loop forbids.
        with jax.transfer_guard_host_to_device("allow"):
            return {
                name: jax.make_array_from_process_local_data(
                    self._sharding,
                    array,
                    (len(array) * self._batch_size // share, *array.shape[1:]),
                )
                for name, array in batch.items()
            }


def table(tree: Tree, placed: Tree) -> list[tuple[str, tuple[int, ...], str, str, int]]:
    """One line a leaf: path, shape, dtype, spec, bytes per device."""
    lines = []
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for (keys, leaf), sharding in zip(leaves, jax.tree.leaves(placed), strict=True):
        size = int(np.prod(sharding.shard_shape(tuple(leaf.shape)))) * leaf.dtype.itemsize
        spec = str(tuple(sharding.spec))
        lines.append((path_of(keys), tuple(leaf.shape), str(leaf.dtype), spec, size))
    return lines


def _first_match(rules: Rules, path: str) -> Any:
    return next((rule for rule in rules if re.search(rule[0], path)), None)


def _parts(spec: P, mesh: Mesh) -> list[int]:
    """Into how many pieces a spec cuts each axis."""
    sizes = []
    for entry in spec:
        names = () if entry is None else (entry,) if isinstance(entry, str) else entry
        sizes.append(int(np.prod([mesh.shape[str(name)] for name in names], dtype=int)))
    return sizes
