"""The main job: will this user bookmark this drawing? Any ranker, batches, loss and metrics."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from umair_jax.data.batches import WEIGHT, BatchSource
from umair_jax.data.ranking import RankingData
from umair_jax.models.inputs import RankerOutput
from umair_jax.tasks.interactions import InteractionsTask
from umair_jax.tasks.interactions import shape_of as shape_of  # for whoever configures a ranker
from umair_jax.training.evaluation import Arrays, Evaluator
from umair_jax.training.metrics import evaluate_predictions

PARTS = ("train", "valid", "test")


class BookmarksTask(InteractionsTask):
    """A ranker over a schema: the probability of a bookmark; batches have "label" int8 [B] too."""

    name = "bookmarks"

    def without(self, modality: str) -> BookmarksTask:
        """The same task with a modality counted as missing, for every item.

        Raises:
            ValueError: The model has no such modality.
        """
        if modality not in self.config.modality_names:
            raise ValueError(
                f"modality: got {modality!r}, expected one of "
                f"{', '.join(self.config.modality_names)}"
            )
        found = copy.copy(self)
        found._masked = modality
        return found

    def loss(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, tuple[Any, Any]]]]:
        """Binary cross-entropy on the logits, mean over the batch's weights.

        Source: paper, equation of the loss; theirs is on clipped probabilities.
        """
        model = self.model(net, stats)
        output = model(self.inputs(rows, context, batch), train=True, key=key)
        label, weight = batch["label"].astype(jnp.float32), batch[WEIGHT]
        each = optax.sigmoid_binary_cross_entropy(output.logit, label)
        total, count = jnp.sum(each * weight), jnp.sum(weight)
        new_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return total / count, (new_stats, {"log_loss": (total, count)})

    def predict(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Probability [B] of a bookmark and weights [B, M] of the modalities, float32.

        M is 0 for a ranker that gives them no weights.
        """
        output: RankerOutput = self.model(net, stats)(self.inputs(rows, context, batch))
        return {"probability": jax.nn.sigmoid(output.logit), "weights": output.weights}

    @property
    def modality_names(self) -> tuple[str, ...]:
        """Names of the modalities in the order of "weights"; "meta" is the item's embeddings."""
        return self.config.weighted


def batch_source(
    data: RankingData, part: str, batch_size: int, seed: int = 0, shuffle: bool | None = None
) -> BatchSource:
    """Batches of "train" (shuffled unless told otherwise), "valid" or "test" interactions."""
    shuffle = part == "train" if shuffle is None else shuffle
    return BatchSource(
        data.columns, batch_size, seed, shuffle, index=data.rows(part), lookups=data.lookups
    )


def flops_per_example(task: BookmarksTask, source: BatchSource) -> float:
    """Floating-point operations of one prediction, as XLA counts them before it optimises.

    Look-ups count nothing; of a batch as large as the source's, divided by it.
    """

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)

    context, batch = shapes(dict(task.context())), shapes(source.batch(0))
    made = jax.eval_shape(task.init, jax.random.key(0))

    def predict(params: Any, stats: Any, context: Any, batch: Any) -> Any:
        rows = task.table_rows(context, batch)
        looked_up = {name: params["tables"][name][r] for name, r in rows.items()}
        return task.predict(params["net"], looked_up, stats, context, batch)

    lowered = jax.jit(predict).lower(made["params"], made["stats"], context, batch)
    cost = lowered.cost_analysis() or {}
    return float(cost.get("flops", float("nan"))) / source.batch_size


def evaluator(
    source: BatchSource, draws: int, modality_names: Sequence[str], final_only: bool = False
) -> Evaluator:
    """Measures predictions for a source.

    Log loss, AUC, GAUC, NDCG@10, Recall@10 and calibration error, with bootstrap intervals where
    `draws` is above 0, and "weight_<name>", the mean weight of each modality.
    """

    def metrics(arrays: Arrays) -> dict[str, float]:
        label, user = source.column("label"), source.column("user")
        means = arrays["weights"].mean(axis=0, dtype=np.float64)
        weights = {
            f"weight_{name}": float(mean) for name, mean in zip(modality_names, means, strict=True)
        }
        return evaluate_predictions(label, arrays["probability"], user, draws) | weights

    return Evaluator(source, metrics, final_only)
