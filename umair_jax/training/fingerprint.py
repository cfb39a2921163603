"""Fingerprints of arrays, by which a restored state is known to be the one that was saved.

The files of a checkpoint hold no checksums of the values: a flipped bit in a large array would be
read without complaint. The sums below are taken on the devices, in whole numbers modulo 2^32, so
that they are the same on every mesh. What is summed is a hash of each value and its place, by which
no two values at one place are alike: any single changed value changes the sum, and any other change
does but for one in 2^32.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.training.sharding import Tree, path_of

# Odd and irregular: multiplying by them is one-to-one modulo 2^32.
_MIX, _FIRST, _SECOND = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35


def fingerprint(tree: Tree) -> dict[str, int]:
    """Path -> number in [0, 2^32) for every array; waits for the arrays."""
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree), strict=True)
    where = leaves[0].sharding
    sums = jax.device_get(_summing(getattr(where, "mesh", None))(leaves))
    return {path_of(path): int(total) for path, total in zip(paths, sums, strict=True)}


def checksum(text: str) -> int:
    """A number in [0, 2^32) for a text."""
    return zlib.crc32(text.encode())


@functools.cache
def _summing(mesh: Mesh | None) -> Callable[[Any], jax.Array]:
    # On a mesh every host needs the sums.
    where = None if mesh is None else NamedSharding(mesh, P())
    return jax.jit(lambda leaves: jnp.stack([_sum(leaf) for leaf in leaves]), out_shardings=where)


def _sum(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{min(8 * leaf.itemsize, 32)}"))
    bits = bits.astype(jnp.uint32)
    position, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        position += along * jnp.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    return jnp.sum(_mixed(bits ^ _mixed(position * jnp.uint32(_MIX))), dtype=jnp.uint32)


def _mixed(x: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3: one-to-one, and every bit depends on all bits."""
    x = (x ^ (x >> 16)) * jnp.uint32(_FIRST)
    x = (x ^ (x >> 13)) * jnp.uint32(_SECOND)
    return x ^ (x >> 16)
