"""Factorisation machine: all products of two fields' embeddings."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def fm_logit(*embeddings: Float[Array, "B _ D"]) -> Float[Array, " B"]:
    """Sum over all pairs of fields of the dot product of their embeddings.

    Args:
        *embeddings: One or more groups of fields [B, F_i, D]; pairs are taken across groups too.

    Source: Rendle 2010, 1/2 sum_d ((sum_f x_fd)^2 - sum_f x_fd^2): linear in F.
    """
    total = sum(group.sum(axis=1) for group in embeddings)
    squares = sum(jnp.square(group).sum(axis=(1, 2)) for group in embeddings)
    return 0.5 * (jnp.square(jnp.asarray(total)).sum(axis=-1) - jnp.asarray(squares))
