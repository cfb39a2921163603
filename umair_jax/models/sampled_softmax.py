"""Soft-max over a catalogue, with the other examples of the batch in place of the catalogue."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class SampledSoftmaxConfig:
    """Options of `sampled_softmax`.

    Attributes:
        correction: Share of the log-q correction. 1: products then estimate the probability of an
            item given the user. 0: they estimate how much likelier the item is than for everybody,
            which leaves popularity out.
    """

    correction: float = 1.0

    def __post_init__(self):
        if not 0.0 <= self.correction <= 1.0:
            raise ValueError(f"correction: got {self.correction}, expected 0 to 1")


def sampled_softmax(
    user: Float[Array, "B D"],
    item: Float[Array, "B D"],
    user_id: Int[Array, " B"],
    item_id: Int[Array, " B"],
    log_q: Float[Array, " B"],
    weight: Float[Array, " B"],
    scale: Float[Array, ""] | float,
    cfg: SampledSoftmaxConfig,
    bias: Float[Array, " B"] | None = None,
    available: Bool[Array, "B B"] | None = None,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """How well each user picks out the item of its example among all items of the batch.

    The batch is the global one: under jit the arrays span all devices. An item is no negative for
    a user who has it as the positive of any example of the batch.

    Args:
        user: Vectors of the users.
        item: Vectors of their items, in the same order.
        user_id: Which user each is.
        item_id: Which item each is.
        log_q: Logarithm of the probability with which each item comes into a batch.
        weight: 0 excludes an example, also its item as somebody's negative.
        scale: Multiplies the products, 1 / temperature.
        cfg: See SampledSoftmaxConfig.
        bias: What is added to the logits of each item; None = nothing.
        available: Whether example i could have had the item of example j, such as one that was not
            out yet; None = always.

    Returns:
        Cross-entropy (nats) and whether the own item is the best (0 or 1), for each example.

    Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling, equations 3 and 5 (batch
    soft-max, s - log p), with shares of the training log as p in place of a streaming estimate.
    Masks of accidental hits are ours.
    """
    place = jnp.arange(len(user))
    logit = scale * jnp.einsum("id,jd->ij", user, item, precision=jax.lax.Precision.HIGHEST)
    logit = logit - cfg.correction * log_q[None, :]
    if bias is not None:
        logit = logit + bias[None, :]
    real = weight > 0
    usable = real[None, :] & ~known_pairs(user_id, item_id, real)
    if available is not None:
        usable = usable & available
    usable = usable.at[place, place].set(True)
    logit = jnp.where(usable, logit, -jnp.inf)
    # An excluded example keeps its own item: a finite loss, which its weight of zero then removes.
    losses = optax.softmax_cross_entropy_with_integer_labels(logit, place)
    return losses, (logit.argmax(1) == place).astype(jnp.float32)


def known_pairs(
    user_id: Int[Array, " B"], item_id: Int[Array, " B"], real: Bool[Array, " B"]
) -> Bool[Array, "B B"]:
    """Whether the user of example i has the item of example j in any example of the batch.

    Args:
        user_id: Which user each example has.
        item_id: Which item.
        real: False for padding, whose pair counts for nobody.
    """
    # Each user and item is known by its first place in the batch: a table of B x B pairs.
    first_user = (user_id[:, None] == user_id[None, :]).argmax(1)
    first_item = (item_id[:, None] == item_id[None, :]).argmax(1)
    count = len(user_id)
    table = jnp.zeros((count, count), bool).at[first_user, first_item].max(real)
    return table[first_user][:, first_item]
