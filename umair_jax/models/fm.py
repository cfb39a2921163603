"""Factorisation machine: all products of two fields' embeddings; a vector can be a field too."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.layers import Dense


def fm_logit(*embeddings: Float[Array, "B _ D"]) -> Float[Array, " B"]:
    """Sum over all pairs of fields of the dot product of their embeddings.

    Args:
        *embeddings: One or more groups of fields [B, F_i, D]; pairs are taken across groups too.

    Source: Rendle 2010, 1/2 sum_d ((sum_f x_fd)^2 - sum_f x_fd^2): linear in F.
    """
    return fm_from_sums(*fm_sums(*embeddings))


def fm_sums(
    *embeddings: Float[Array, "B _ D"],
) -> tuple[Float[Array, "B D"], Float[Array, " B"]]:
    """Sum of the fields' embeddings and sum of all their squares.

    Those of several groups of fields add up, so that groups can be summed apart and beforehand.
    """
    total = sum(group.sum(axis=1) for group in embeddings)
    squares = sum(jnp.square(group).sum(axis=(1, 2)) for group in embeddings)
    return jnp.asarray(total), jnp.asarray(squares)


def fm_from_sums(total: Float[Array, "B D"], squares: Float[Array, " B"]) -> Float[Array, " B"]:
    """The logit of `fm_logit` from what `fm_sums` gives for all fields."""
    return 0.5 * (jnp.square(total).sum(axis=-1) - squares)


class VectorFields(nnx.Module):
    """Each vector as one or more fields of the embeddings' width, x_v W_v.

    Args:
        widths: Width of each vector by name; one at least.
        width: D, the width of the embeddings.
        each: Fields of a vector.
        dtype: Type of the products' inputs, see `Dense`.
    """

    def __init__(
        self, widths: Mapping[str, int], width: int, *, rngs: nnx.Rngs, each: int = 1, dtype: str
    ):
        self.width = width
        self.projections = nnx.Dict()
        for name, size in widths.items():
            self.projections[name] = Dense(
                size, each * width, rngs=rngs, use_bias=False, dtype=dtype
            )

    def __call__(self, vectors: Mapping[str, Float[Array, "B _"]]) -> Float[Array, "B V D"]:
        """The fields, in the order of the vectors."""
        rows = [self.projections[name](x) for name, x in vectors.items()]
        return jnp.concatenate([y.reshape(y.shape[0], -1, self.width) for y in rows], axis=1)
