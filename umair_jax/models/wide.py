"""The wide part: a linear model over every sparse value."""

from jaxtyping import Array, Float


def wide_logit(weights: Float[Array, "B F"]) -> Float[Array, " B"]:
    """Sums the looked-up weights of an example's sparse values; no bias.

    The same as a linear layer over the concatenated one-hots, without the one-hots.
    """
    return weights.sum(axis=-1)
