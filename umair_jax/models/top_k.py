"""The best k of a catalogue for every query, by inner product, without all scores at once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Int32


@dataclasses.dataclass(frozen=True)
class TopKConfig:
    """How a catalogue is searched.

    Attributes:
        block: Items whose scores are in memory at a time, for all queries.
        approximate: Search each block with jax.lax.approx_max_k, which is faster on TPUs and
            may miss some of the best.
        recall_target: Share of the best k of a block that it is to find on average.
    """

    block: int = 8192
    approximate: bool = False
    recall_target: float = 0.95

    def __post_init__(self):
        if self.block < 1 or not 0.0 < self.recall_target <= 1.0:
            raise ValueError(
                f"top k: got block {self.block}, recall_target {self.recall_target}; expected a "
                "block of 1 or more, and a target above 0, at most 1"
            )


def top_k(
    query: Float[Array, "Q D"],
    items: Float[Array, "N D"],
    k: int,
    *,
    allowed: Bool[Array, " N"] | None = None,
    excluded: Int[Array, "Q L"] | None = None,
    config: TopKConfig | None = None,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "Q k"], Int32[Array, "Q k"]]:
    """Finds the items with the largest inner products, the best first; equal ones by lower row.

    Memory grows with Q x (block + k), never with Q x N. On a mesh every device searches its own
    rows, and only k candidates of each travel.

    Args:
        query: Vectors of the queries.
        items: Vectors of the items, any float type; products are summed in float32.
        k: 1 to N.
        allowed: Which items may be found, for all queries; None = all.
        excluded: Rows that a query must not find, such as what its user knows; negative = none.
        config: See TopKConfig.
        mesh: None, or the mesh over whose axes the rows of `items` are spread; N is then a
            multiple of its devices (see sharding.place_context; `allowed` hides the padding).

    Returns:
        Scores, and rows of the items; -inf and -1 where fewer than k may be found.

    Raises:
        ValueError: k is not within 1 and N, or the mesh does not divide N.
    """
    config, count = config or TopKConfig(), len(items)
    if not 1 <= k <= count:
        raise ValueError(f"top k: got k {k}, expected 1 to {count}, the number of items")
    allowed = jnp.ones((count,), bool) if allowed is None else allowed
    excluded = jnp.full((len(query), 0), -1, jnp.int32) if excluded is None else excluded
    if mesh is None or mesh.size == 1:
        return _search(query, items, allowed, excluded, k, config)
    if count % mesh.size:
        raise ValueError(
            f"top k: got {count} items for {mesh.size} devices, expected a multiple; pad them with "
            "rows that are not allowed"
        )
    axes = tuple(mesh.axis_names)

    def local(query: Array, items: Array, allowed: Array, excluded: Array) -> tuple[Array, Array]:
        first = jax.lax.axis_index(axes) * len(items)
        # Rows of other devices turn negative, or lie past the end.
        mine = jnp.where(excluded < 0, -1, excluded - first)
        score, row = _search(query, items, allowed, mine, min(k, len(items)), config)
        row = jnp.where(row < 0, -1, row + first)
        # In order of the devices, hence of the rows: equal scores stay ordered.
        score, row = (jax.lax.all_gather(x, axes, axis=1, tiled=True) for x in (score, row))
        return _best(score, row, k)

    searched = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(P(), P(axes), P(axes), P()),
        out_specs=(P(), P()),
        # all_gather's result is the same on every device, which the checker cannot know.
        check_vma=False,
    )
    return searched(query, items, allowed, excluded)


def _search(
    query: Array, items: Array, allowed: Array, excluded: Array, k: int, config: TopKConfig
) -> tuple[Array, Array]:
    """The best k of one device's items; rows count from its first."""
    count, queries = len(items), len(query)
    block = min(config.block, count)
    whole, rest = divmod(count, block)
    at = jnp.arange(queries)[:, None]

    def improve(best: tuple[Array, Array], start: Array | int, size: int) -> tuple[Array, Array]:
        part, usable = (jax.lax.dynamic_slice_in_dim(x, start, size) for x in (items, allowed))
        score = jnp.einsum(
            "qd,nd->qn",
            query,
            part,
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        score = jnp.where(usable[None, :], score, -jnp.inf)
        local = excluded - start
        # A negative index would count from the end.
        local = jnp.where((excluded < 0) | (local < 0), size, local)
        score = score.at[at, local].set(-jnp.inf, mode="drop")
        found, row = _block_best(score, min(k, size), config)
        row = jnp.where(found == -jnp.inf, -1, row + start)
        found = jnp.concatenate([best[0], found], axis=1)
        return _best(found, jnp.concatenate([best[1], row], axis=1), k)

    best = (
        jnp.full((queries, k), -jnp.inf, jnp.float32),
        jnp.full((queries, k), -1, jnp.int32),
    )
    # The first blocks are all of one size; what is left over is a block of its own: no padding.
    best, _ = jax.lax.scan(
        lambda best, number: (improve(best, number * block, block), None),
        best,
        jnp.arange(whole, dtype=jnp.int32),
    )
    return improve(best, whole * block, rest) if rest else best


def _block_best(score: Array, k: int, config: TopKConfig) -> tuple[Array, Array]:
    search = jax.lax.top_k
    if config.approximate:
        search = functools.partial(jax.lax.approx_max_k, recall_target=config.recall_target)
    found, row = search(score, k)
    return found, row.astype(jnp.int32)


def _best(score: Array, row: Array, k: int) -> tuple[Array, Array]:
    """The best k of candidates that are in order of their rows where scores are equal."""
    found, place = jax.lax.top_k(score, k)
    return found, jnp.take_along_axis(row, place, axis=1)
