"""User-aware multi-modal contribution: how much each modality of an item counts for a user."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from umair_jax.models.layers import Dense, check_choice, dropout, split_key

KINDS = ("attention", "senet", "mixture", "static", "none")
EXPERTS = ("attention", "senet")


@dataclasses.dataclass(frozen=True)
class UMCMConfig:
    """How the modalities are fused.

    Attributes:
        kind: "attention": soft-max of the dot products user . modality. "senet": user-aware
            squeeze-excitation. "mixture": several of these two, and an attention over their
            outputs. "static": learnable weights, the same for every user and item. "none":
            concatenation, no weights.
        experts: Experts of "mixture", any number of "attention" and "senet".
        dropout: Rate of the dropout on the attention weights, in training.
    """

    kind: str = "attention"
    experts: tuple[str, ...] = ("attention", "senet")
    dropout: float = 0.5

    def __post_init__(self):
        check_choice("UMCM kind", self.kind, KINDS)
        if self.kind == "mixture" and not self.experts:
            raise ValueError("UMCM experts: got none, expected at least one for kind 'mixture'")
        for expert in self.experts:
            check_choice("UMCM expert", expert, EXPERTS)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"UMCM dropout: got {self.dropout}, expected 0 <= rate < 1")


class Fusion(NamedTuple):
    """Fused item vectors [B, D] ([B, M*D] for "none") and modality weights [B, M].

    The weights are those before dropout, and every row sums to 1. For "mixture" they are each
    modality's share in the fused vector over all experts; for "none" they are uniform.
    """

    fused: Float[Array, "B _"]
    weights: Float[Array, "B M"]


def present_or_first(present: Bool[Array, "B M"]) -> Bool[Array, "B M"]:
    """Counts the first modality as present in the rows that have none, so that no row is empty."""
    nothing = ~present.any(axis=-1)
    return present.at[:, 0].set(present[:, 0] | nothing)


def masked_softmax(
    logits: Float[Array, "B M"], present: Bool[Array, "B M"] | None
) -> Float[Array, "B M"]:
    """Soft-max over the present modalities, float32; the others get exactly 0."""
    if present is not None:
        logits = jnp.where(present, logits, -1e30)
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


class SqueezeExcitation(nnx.Module):
    """Weights from the modalities' channel means, seen through the user vector.

    w = softmax(W2 relu((W1 mean_d(items) + b1) * user) + b2). L2 of 1e-3 on both kernels in the
    published code is the optimiser's business here.
    """

    def __init__(self, user_width: int, modalities: int, *, rngs: nnx.Rngs):
        self.squeeze = Dense(modalities, user_width, rngs=rngs)
        self.excite = Dense(user_width, modalities, rngs=rngs)

    def __call__(
        self,
        user: Float[Array, "B U"],
        items: Float[Array, "B M D"],
        present: Bool[Array, "B M"] | None = None,
    ) -> Float[Array, "B M"]:
        """Modality weights; missing modalities must be zero in `items`."""
        hidden = jax.nn.relu(self.squeeze(items.mean(axis=-1)) * user)
        return masked_softmax(self.excite(hidden), present)


class UMCM(nnx.Module):
    """Fuses an item's modalities for a user, one (user, item) pair at a time.

    Source: UMAIR-FPS (arXiv 2402.10381), user-aware multi-modal contribution measurement. The
    published attention averages the weights over all users of a batch; here, as in the text of
    the paper, every pair is on its own. The squeeze-excitation output is the mean over the
    modalities of the weighted vectors, as published, hence 1 / M of the weighted sum.
    """

    def __init__(
        self, cfg: UMCMConfig, user_width: int, modalities: int, width: int, *, rngs: nnx.Rngs
    ):
        """Builds the module.

        Args:
            cfg: Kind and options.
            user_width: Width of the user vector.
            modalities: Number M of modalities.
            width: Width D of a modality vector.
            rngs: Source of the initial weights.

        Raises:
            ValueError: Attention between vectors of different widths.
        """
        if cfg.kind in ("attention", "mixture") and user_width != width:
            raise ValueError(
                f"UMCM {cfg.kind}: got user width {user_width} and modality width {width}, "
                "expected them equal, since their dot product is taken"
            )
        self.cfg = cfg
        self.modalities = modalities
        self.width = width
        kinds = cfg.experts if cfg.kind == "mixture" else (cfg.kind,)
        self.experts = nnx.Dict()
        for index, kind in enumerate(kinds):
            if kind == "senet":
                expert = SqueezeExcitation(user_width, modalities, rngs=rngs)
                self.experts[f"expert_{index}"] = expert
        if cfg.kind == "static":
            self.logits = nnx.Param(jnp.zeros((modalities,), jnp.float32))

    @property
    def output_width(self) -> int:
        """Width of the fused vector."""
        return self.width * (self.modalities if self.cfg.kind == "none" else 1)

    def __call__(
        self,
        user: Float[Array, "B U"],
        items: Float[Array, "B M D"],
        present: Bool[Array, "B M"] | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> Fusion:
        """Fuses the modalities.

        Args:
            user: User vectors.
            items: Modality vectors, any finite values where missing.
            present: Which modalities exist; None = all. A row without any counts as one that has
                its first modality alone.
            train: Dropout on.
            key: Source of the dropout.

        Returns:
            The fused vectors and the weights, both float32.
        """
        kind = self.cfg.kind
        batch, modalities = items.shape[:2]
        if present is not None:
            present = present_or_first(present)
            items = jnp.where(present[..., None], items, 0.0)
        if kind in ("none", "static"):
            logits = jnp.zeros((modalities,)) if kind == "none" else self.logits[...]
            weights = masked_softmax(jnp.broadcast_to(logits, (batch, modalities)), present)
            if kind == "none":
                return Fusion(items.reshape(batch, -1), weights)
            return Fusion(_weighted(items, weights), weights)
        if kind == "senet":
            weights = self.experts["expert_0"](user, items, present)
            return Fusion(_weighted(items, weights) / modalities, weights)
        # Multiply and sum: a batched matrix-vector product is several times slower on a CPU.
        scores = (user[:, None, :] * items).sum(axis=-1)
        attention = masked_softmax(scores, present)
        rate = self.cfg.dropout if train else 0.0
        if kind == "attention":
            return Fusion(_weighted(items, dropout(attention, rate, key)), attention)
        return self._mixture(user, items, present, scores, attention, rate, key)

    def _mixture(self, user, items, present, scores, attention, rate, key) -> Fusion:
        """Gates the experts; expert e gives sum_m s_e w_em item_m, so only weights are handled."""
        clean, used = [], []
        for index, (kind, part) in enumerate(
            zip(self.cfg.experts, split_key(key, len(self.cfg.experts)), strict=True)
        ):
            if kind == "attention":
                clean.append(attention)
                used.append(dropout(attention, rate, part))
            else:
                weights = self.experts[f"expert_{index}"](user, items, present)
                clean.append(weights / self.modalities)
                used.append(clean[-1])
        stacked = jnp.stack(used, axis=1)
        # user . output_e = sum_m w_em (user . item_m): the scores are already there.
        gates = jax.nn.softmax((stacked * scores[:, None, :]).sum(axis=-1), axis=-1)[..., None]
        shares = (gates * jnp.stack(clean, axis=1)).sum(axis=1)
        shares = shares / shares.sum(axis=-1, keepdims=True)
        return Fusion(_weighted(items, (gates * stacked).sum(axis=1)), shares)


def _weighted(items: jax.Array, weights: jax.Array) -> jax.Array:
    return (items * weights[..., None]).sum(axis=1)
