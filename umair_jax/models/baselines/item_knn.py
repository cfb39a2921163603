"""Item-kNN by content: how near is the item to what the user bookmarked?"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models.baselines.features import BaselineConfig, output
from umair_jax.models.inputs import RankerInputs, RankerOutput


@dataclasses.dataclass(frozen=True)
class ItemKNNConfig(BaselineConfig):
    """Options of ItemKNN.

    Attributes:
        neighbours: k: bookmarks of the user that count, the most similar ones.
    """

    reads_history: ClassVar[bool] = True

    neighbours: int = 5

    def __post_init__(self):
        super().__post_init__()
        if self.neighbours < 1:
            raise ValueError(f"item_knn neighbours: got {self.neighbours}, expected at least 1")
        if not self.modalities:
            raise ValueError("item_knn: got no vectors of items, expected at least one kind")

    @property
    def tables(self) -> tuple[str, ...]:
        """It reads vectors alone."""
        return ()

    def create(self, rngs: nnx.Rngs) -> ItemKNN:
        """The ranker."""
        return ItemKNN(self)


def nearest_mean(
    item: Float[Array, "B D"], history: Float[Array, "B L D"], neighbours: int
) -> Float[Array, " B"]:
    """Mean cosine to the `neighbours` nearest rows of the history; zero rows do not count."""
    unit = item / jnp.maximum(jnp.linalg.norm(item, axis=-1, keepdims=True), 1e-6)
    lengths = jnp.maximum(jnp.linalg.norm(history, axis=-1), 1e-6)
    cosine = (history * unit[:, None, :]).sum(axis=-1) / lengths
    there = (history != 0).any(axis=-1)
    count = min(neighbours, history.shape[1])
    best = jax.lax.top_k(jnp.where(there, cosine, -2.0), count)[0]
    known = best > -1.5
    return jnp.where(known, best, 0.0).sum(axis=-1) / jnp.maximum(known.sum(axis=-1), 1)


class ItemKNN(nnx.Module):
    """logit = b + sum_m w_m mean_{k nearest bookmarks} cos(item_m, bookmark_m).

    Source: Deshpande and Karypis, Item-based Top-N Recommendation (2004), with content vectors in
    place of co-occurrence. Only b and the w_m are learned, so that the scores are probabilities.
    """

    def __init__(self, cfg: ItemKNNConfig):
        self.cfg = cfg
        self.bias = nnx.Param(jnp.zeros((), jnp.float32))
        self.scale = nnx.Param(jnp.ones((len(cfg.modalities),), jnp.float32))

    def __call__(
        self,
        inputs: RankerInputs,
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> RankerOutput:
        """Scores a batch; `train`, `key` and `weight` change nothing.

        Raises:
            ValueError: The batch has no history.
        """
        if inputs.history is None:
            raise ValueError("item_knn: got no history, expected the vectors of bookmarked items")
        logit = self.bias[...]
        for k, name in enumerate(self.cfg.modality_names):
            item = inputs.modalities[name].astype(jnp.float32)
            if inputs.present is not None:
                item = jnp.where(inputs.present[:, k, None], item, 0.0)
            near = nearest_mean(item, inputs.history[name], self.cfg.neighbours)
            logit = logit + self.scale[k] * near
        return output(logit)
