"""Losses of the encoders: many labels at once, agreement of two views, pairs among a batch."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from umair_jax.models.layers import check_choice

KINDS = ("bce", "focal", "asymmetric")


@dataclasses.dataclass(frozen=True)
class MultiLabelConfig:
    """Loss over labels that exclude nothing.

    Attributes:
        kind: "bce"; "focal" (Lin et al. 2017); "asymmetric" (Ridnik et al. 2021).
        gamma: Focal: how much well-predicted labels count less.
        gamma_positive: Asymmetric: the same for labels that are there.
        gamma_negative: Asymmetric: for labels that are not.
        margin: Asymmetric: taken off the probability of labels that are not there, so that easy
            ones count nothing.
    """

    kind: str = "bce"
    gamma: float = 2.0
    gamma_positive: float = 0.0
    gamma_negative: float = 4.0
    margin: float = 0.05

    def __post_init__(self):
        check_choice("multi-label loss", self.kind, KINDS)
        for name in ("gamma", "gamma_positive", "gamma_negative", "margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        if self.margin >= 1:
            raise ValueError(f"margin: got {self.margin}, expected less than 1")


def multi_label(
    logit: Float[Array, "B T"], label: Float[Array, "B T"], cfg: MultiLabelConfig
) -> Float[Array, " B"]:
    """Sum over the labels of each example's loss, in nats.

    Args:
        logit: Any float; computed in float32.
        label: 0 or 1.
        cfg: Which loss.
    """
    logit, label = logit.astype(jnp.float32), label.astype(jnp.float32)
    if cfg.kind == "bce":
        return optax.sigmoid_binary_cross_entropy(logit, label).sum(-1)
    if cfg.kind == "focal":
        return optax.sigmoid_focal_loss(logit, label, gamma=cfg.gamma).sum(-1)
    # -log p and -log(1 - p) from the logit; the shifted probability needs p itself.
    missed = 1 - jax.nn.sigmoid(logit)
    positive = _power(missed, cfg.gamma_positive) * jax.nn.softplus(-logit)
    shifted = jnp.maximum(jax.nn.sigmoid(logit) - cfg.margin, 0)
    negative = _power(shifted, cfg.gamma_negative) * -jnp.log1p(-jnp.minimum(shifted, 1 - 1e-6))
    return (label * positive + (1 - label) * negative).sum(-1)


def _power(base: Float[Array, "B T"], exponent: float) -> Float[Array, "B T"] | float:
    # Away from zero, where the slope of a power below one is infinite.
    return jnp.maximum(base, 1e-6) ** exponent if exponent else 1.0


def agreement(
    one: Float[Array, "B D"],
    other: Float[Array, "B D"],
    weight: Float[Array, " B"],
    temperature: float,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """How well each vector picks out its partner among all of the batch, both ways.

    The batch is the global one: under jit the arrays span all devices.

    Args:
        one: Vectors; their lengths do not matter.
        other: Their partners, in the same order.
        weight: 0 excludes an example, also as somebody's alternative.
        temperature: Divides the cosines.

    Returns:
        Cross-entropy (nats, mean of both ways) and whether the partner is the nearest (0 or 1),
        for each example.

    Source: InfoNCE, van den Oord et al. 2018, as the NT-Xent of Chen et al. 2020 between views.
    """
    one, other = unit(one), unit(other)
    cosine = jnp.einsum("id,jd->ij", one, other, precision=jax.lax.Precision.HIGHEST)
    logit = jnp.where(weight[None, :] > 0, cosine / temperature, -jnp.inf)
    back = jnp.where(weight[None, :] > 0, cosine.T / temperature, -jnp.inf)
    place = jnp.arange(len(one))
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(
            # An excluded example still needs a finite loss for its weight of zero to count.
            side.at[place, place].set(jnp.diagonal(cosine) / temperature),
            place,
        )
        for side in (logit, back)
    ]
    return (losses[0] + losses[1]) / 2, (logit.argmax(1) == place).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class RankingConfig:
    """Options of `ranking`.

    Attributes:
        scale: Multiplies the cosines.
        symmetric: The partner is to be found both ways, not only from the first text.
    """

    scale: float = 20.0
    symmetric: bool = False

    def __post_init__(self):
        if self.scale <= 0:
            raise ValueError(f"scale: got {self.scale}, expected above 0")


def ranking(
    first: Float[Array, "B D"],
    second: Float[Array, "C D"],
    first_id: Int[Array, " B"],
    second_id: Int[Array, " C"],
    weight: Float[Array, " B"],
    cfg: RankingConfig,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """How well each text picks out its partner among all second texts of the batch.

    The batch is the global one: under jit the arrays span all devices. A text never competes with
    itself: candidates that are the same text as the partner, or as the text that asks, and those
    that are a partner of the same text in another pair, are no negatives.

    Args:
        first: Vectors of the texts that ask; their lengths do not matter.
        second: Candidates: first the partners, in the same order, then further negatives.
        first_id: Which text each is.
        second_id: Likewise; negative where there is none.
        weight: 0 excludes an example, also its partner as somebody's candidate.
        cfg: See RankingConfig.

    Returns:
        Cross-entropy (nats) and whether the partner is the nearest (0 or 1), for each example.

    Source: multiple negatives ranking, Henderson et al. 2017, Efficient Natural Language Response
    Suggestion; UMAIR-FPS uses it with scale 20.
    """
    count = len(first)
    logit = cfg.scale * jnp.einsum(
        "id,jd->ij", unit(first), unit(second), precision=jax.lax.Precision.HIGHEST
    )
    place = jnp.arange(count)
    partner = second_id[:count]
    known = (second_id[None, :] == partner[:, None]) | (second_id[None, :] == first_id[:, None])
    known = known.at[:, :count].set(known[:, :count] | (first_id[:, None] == first_id[None, :]))
    real = (second_id >= 0).at[:count].set(weight > 0)
    usable = (real[None, :] & ~known).at[place, place].set(True)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        jnp.where(usable, logit, -jnp.inf), place
    )
    right = jnp.where(usable, logit, -jnp.inf).argmax(1) == place
    if cfg.symmetric:
        back = jnp.where(usable[:, :count], logit[:, :count], -jnp.inf).T
        back = jnp.where((weight > 0)[None, :] | jnp.eye(count, dtype=bool), back, -jnp.inf)
        losses = (losses + optax.softmax_cross_entropy_with_integer_labels(back, place)) / 2
    return losses, right.astype(jnp.float32)


def standardised(vectors: Float[Array, "B D"], weight: Float[Array, " B"]) -> Float[Array, "B D"]:
    """Vectors whose numbers have mean 0 and variance 1 over the batch, float32.

    Args:
        vectors: Of the global batch.
        weight: 0 excludes an example from mean and variance.
    """
    vectors = vectors.astype(jnp.float32)
    share = (weight / jnp.maximum(weight.sum(), 1.0))[:, None]
    centred = vectors - (share * vectors).sum(0)
    return centred * jax.lax.rsqrt((share * jnp.square(centred)).sum(0) + 1e-6)


def redundancy(vectors: Float[Array, "B D"], weight: Float[Array, " B"]) -> Float[Array, ""]:
    """Mean over the numbers of a vector of the squared correlations with all other numbers.

    Args:
        vectors: Of the global batch.
        weight: 0 excludes an example.

    Source: the covariance term of VICReg, Bardes et al. 2022, of correlations.
    """
    each = (
        standardised(vectors, weight) * jnp.sqrt(weight / jnp.maximum(weight.sum(), 1.0))[:, None]
    )
    correlation = jnp.einsum("bi,bj->ij", each, each, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.square(correlation)
    return (squares.sum() - jnp.diagonal(squares).sum()) / len(squares)


def unit(vectors: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Vectors of length 1, float32; zero stays zero, with a finite gradient."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.square(vectors).sum(-1, keepdims=True) + 1e-12)
