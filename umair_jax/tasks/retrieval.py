"""Candidates: which of all drawings might this user bookmark? Two towers, trained on bookmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32, Int

from umair_jax.data.batches import WEIGHT
from umair_jax.data.ranking import RankingData
from umair_jax.data.splits import TRAIN
from umair_jax.models.sampled_softmax import SampledSoftmaxConfig, sampled_softmax
from umair_jax.models.two_tower import TwoTowerConfig
from umair_jax.tasks.interactions import InteractionsTask

LOG_Q, PUBLISHED = "log_q", "published_day"
DAY = "day"
USER, ITEM = "user_vector", "item_vector"


class RetrievalTask(InteractionsTask):
    """TwoTower as pure functions for the training loop; every example is a bookmark.

    In training the batch carries "day" float32 [B] as well, see data/publication.py.
    """

    name = "retrieval"

    def __init__(
        self,
        data: RankingData,
        config: TwoTowerConfig,
        objective: SampledSoftmaxConfig,
        published: Float32[np.ndarray, " N1"],
    ) -> None:
        """Prepares the shapes; creates no array on the devices.

        Args:
            data: Schema, context and the log.
            config: Options of the towers, for that schema.
            objective: See SampledSoftmaxConfig.
            published: Day of each item's publication, on the clock of "day".

        Raises:
            ValueError: As InteractionsTask.
        """
        super().__init__(data, config)
        self.objective, self._published = objective, published
        trained = (data.split == TRAIN) & (data.columns["label"] == 1)
        self._log_q = log_shares(data.columns["item"][trained], len(data.context["item_rows"]))

    def context(self) -> Mapping[str, np.ndarray]:
        """The arrays of RankingData.context, "log_q" and "published_day" float32 [N+1]."""
        return {**super().context(), LOG_Q: self._log_q, PUBLISHED: self._published}

    def loss(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, tuple[Any, Any]]]]:
        """Mean of the sampled soft-max over the batch's weights; "found": own item is the best."""
        model = self.model(net, stats)
        weight = batch[WEIGHT]
        users, items = model.both(self.inputs(rows, context, batch), True, key, weight)
        published = _published(context, batch)
        each, found = sampled_softmax(
            users,
            items,
            batch["user"],
            batch["item"],
            context[LOG_Q].at[batch["item"]].get(mode="promise_in_bounds"),
            weight,
            model.scale(),
            self.objective,
            bias=model.rate() * published,
            available=published[None, :] <= batch[DAY][:, None],
        )
        count = jnp.sum(weight)
        metrics = {
            "found": (jnp.sum(found * weight), count),
            "scale": (model.scale(), 1.0),
            "rate": (model.rate(), 1.0),
        }
        new_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return jnp.sum(each * weight) / jnp.maximum(count, 1.0), (new_stats, metrics)

    def predict(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Vectors of the user and of the item of each example, float32 [B, D].

        D is the width of the towers; with freshness one more, which makes the product that of the
        towers plus what the item's day of publication is worth, in units of the temperature.
        """
        model = self.model(net, stats)
        users, items = model.both(self.inputs(rows, context, batch))
        if model.cfg.freshness:
            bias = model.rate() * _published(context, batch) / model.scale()
            users = jnp.concatenate([users, jnp.ones_like(users[:, :1])], axis=1)
            items = jnp.concatenate([items, bias[:, None]], axis=1)
        return {USER: users, ITEM: items}


def _published(context: Any, batch: Any) -> jax.Array:
    return context[PUBLISHED].at[batch["item"]].get(mode="promise_in_bounds")


def log_shares(item: Int[np.ndarray, " E"], rows: int) -> Float32[np.ndarray, " N1"]:
    """Logarithm of each item's share of the examples.

    An item without any, which no batch can have, counts as if it had one, so that all are finite.

    Args:
        item: Item rows of the training examples.
        rows: N+1.
    """
    counts = np.bincount(item, minlength=rows)
    return np.log(np.maximum(counts, 1) / max(len(item), 1)).astype(np.float32)
