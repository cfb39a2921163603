"""The text encoder's task: which of all texts of the batch belongs to this one?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from umair_jax.data.batches import WEIGHT
from umair_jax.data.pair_batches import FIRST, NEGATIVE, POSITION, SECOND, SLOT, TOKENS
from umair_jax.models import losses
from umair_jax.models.initialise import HostDraws
from umair_jax.models.losses import RankingConfig
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig
from umair_jax.models.transformer import Packing
from umair_jax.models.weights import fill_nested


@dataclasses.dataclass(frozen=True)
class PairObjectiveConfig:
    """What is minimised.

    Attributes:
        ranking: Multiple negatives ranking over the global batch.
        parts: The batch is encoded in so many parts, one after another, and once more in the
            backward pass: a gradient cache, for batches that do not fit memory. The loss is that of
            the whole batch.
    """

    ranking: RankingConfig = dataclasses.field(default_factory=RankingConfig)
    parts: int = 1

    def __post_init__(self):
        if self.parts < 1:
            raise ValueError(f"parts: got {self.parts}, expected 1 or more")


class TextPairsTask:
    """TextEncoder as pure functions for the training loop; batches are those of PairSource."""

    name = "text_pairs"

    def __init__(
        self,
        config: TextEncoderConfig,
        objective: PairObjectiveConfig,
        row_tokens: int,
        start: TextEncoder | None = None,
    ) -> None:
        """Prepares the shapes; creates no array.

        Args:
            config: Shape of the encoder.
            objective: See PairObjectiveConfig.
            row_tokens: Length of the packed rows.
            start: An encoder whose weights training starts from; None = random ones.
        """
        if row_tokens > config.max_positions:
            raise ValueError(
                f"row_tokens: got {row_tokens}, expected at most the encoder's max_positions, "
                f"{config.max_positions}"
            )
        self.config, self.objective, self._row_tokens = config, objective, row_tokens
        self._start = None
        if start is not None:
            self._start = jax.device_get(nnx.to_pure_dict(nnx.state(start, nnx.Param)))
        model = nnx.eval_shape(lambda: TextEncoder(config, rngs=nnx.Rngs(0)))
        self._graph = nnx.split(model)[0]

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Parameters; there are no statistics."""
        if self._start is not None:
            return {"params": {"net": jax.tree.map(jnp.asarray, self._start)}, "stats": {}}
        model = TextEncoder(self.config, rngs=nnx.Rngs(params=key))
        return {"params": {"net": nnx.to_pure_dict(nnx.state(model, nnx.Param))}, "stats": {}}

    def context(self) -> Mapping[str, np.ndarray]:
        """Nothing."""
        return {}

    def table_rows(self, context: Any, batch: Any) -> dict[str, jax.Array]:
        """None."""
        return {}

    def loss(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, tuple[Any, Any]]]]:
        """Mean of the ranking loss over the batch's weights; "found": partner is the nearest."""
        vectors = self._encode(net, batch, train=True, key=key)
        weight, count = batch[WEIGHT], len(batch[WEIGHT])
        candidates = [batch[name] for name in (SECOND, NEGATIVE) if name in batch]
        each, right = losses.ranking(
            vectors[:count],
            vectors[count:],
            batch[FIRST],
            jnp.concatenate(candidates),
            weight,
            self.objective.ranking,
        )
        total = jnp.maximum(weight.sum(), 1.0)
        metrics = {
            "found": (jnp.sum(right * weight), weight.sum()),
            "padding": (jnp.sum(batch[SLOT] < 0), batch[SLOT].size),
        }
        return jnp.sum(each * weight) / total, (stats, metrics)

    def predict(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Vectors of the first and of the second texts, float32 [B, D], of length 1."""
        vectors = losses.unit(self._encode(net, batch))
        count = len(batch[WEIGHT])
        return {FIRST: vectors[:count], SECOND: vectors[count : 2 * count]}

    def encoder(self, params: Any) -> TextEncoder:
        """The encoder with trained weights."""
        encoder = TextEncoder(self.config, rngs=HostDraws(0))
        fill_nested(encoder, nnx.Param, params["net"])
        return encoder

    def _encode(
        self, net: Any, batch: Any, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        """Vectors of all texts of the batch by slot: the first ones, their partners, negatives."""
        model = nnx.merge(self._graph, net)
        tokens, slot, position = (
            batch[name].reshape(-1, self._row_tokens) for name in (TOKENS, SLOT, POSITION)
        )
        texts = len(batch[WEIGHT]) * (3 if NEGATIVE in batch else 2)
        return model.packed(
            tokens,
            Packing(slot, position),
            texts,
            self.objective.parts if train else 1,
            train=train,
            key=key,
        )
