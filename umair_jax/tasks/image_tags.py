"""The image encoder's pretext task: which tags did the artist give this drawing?

Two more objectives, both without any label, give the two outputs something of their own to learn:

- content: a drawing and its repainted copy are to have one (standardised) content vector, different
  drawings different ones;
- style: two halves of one drawing are to have one style vector, halves of other drawings, and of
  the same drawing in other paint, different ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from umair_jax.data.batches import WEIGHT
from umair_jax.data.image_tags import ImageTags
from umair_jax.data.picture_batches import IMAGE, ITEM, PictureSource
from umair_jax.models import augment
from umair_jax.models.augment import AugmentConfig
from umair_jax.models.image_encoder import ImageEncoder
from umair_jax.models.initialise import HostDraws
from umair_jax.models.losses import (
    MultiLabelConfig,
    agreement,
    multi_label,
    redundancy,
    standardised,
)
from umair_jax.models.tagger import ImageTagger, TaggerConfig, TaggerOutput
from umair_jax.models.weights import fill_nested
from umair_jax.training import multi_label_metrics
from umair_jax.training.evaluation import Arrays, Evaluator

_RAREST = 1e-4  # a tag's initial probability is at least this


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised: a weighted sum.

    Attributes:
        tags: Weight of the multi-label loss (sum over the tags).
        label_loss: Which multi-label loss.
        popularity: Weight of the soft-max losses over buckets of popularity.
        content: Weight of the agreement of two views' contents; above 0 every drawing is seen twice
            in a step, once repainted. Views find each other among those of the batch, with
            train.micro_batches among those of a part of it, which is easier.
        content_temperature: Of that agreement.
        style: Weight of the agreement of two halves' styles, likewise.
        style_temperature: Of that agreement.
        style_redundancy: Weight of the correlations between the numbers of a style vector; without
            it a few directions come to hold all that is learned. Only where `style` is above 0.
    """

    tags: float = 1.0
    label_loss: MultiLabelConfig = dataclasses.field(default_factory=MultiLabelConfig)
    popularity: float = 0.0
    content: float = 0.0
    content_temperature: float = 0.1
    style: float = 0.0
    style_temperature: float = 0.1
    style_redundancy: float = 0.0

    def __post_init__(self):
        weights = {name: getattr(self, name) for name in ("tags", "popularity", "content", "style")}
        if min(*weights.values(), self.style_redundancy) < 0 or not any(weights.values()):
            raise ValueError(
                f"objective: got weights {weights} and style_redundancy {self.style_redundancy}, "
                "expected 0 or more, not all 0"
            )
        for name in ("content_temperature", "style_temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected above 0")


class ImageTagsTask:
    """ImageTagger as pure functions for the training loop.

    The batch carries "item" int32 [B], "image" uint8 [B, S, S, 3] and "weight" float32 [B]; labels
    are looked up in the context. There are no tables.
    """

    name = "image_tags"

    def __init__(
        self,
        labels: ImageTags,
        config: TaggerConfig,
        objective: ObjectiveConfig,
        augmentation: AugmentConfig,
    ) -> None:
        """Prepares the shapes; creates no array.

        Raises:
            ValueError: The objective asks for buckets of popularity and there are none.
        """
        if objective.popularity and not labels.bucket_counts:
            raise ValueError(
                "objective.popularity is above 0, but labels.popularity names no column"
            )
        self.labels, self.config = labels, config
        self.objective, self.augmentation = objective, augmentation
        model = nnx.eval_shape(lambda: self._model(nnx.Rngs(0)))
        self._graph = nnx.split(model, nnx.Param, nnx.BatchStat)[0]

    def _model(self, rngs: nnx.Rngs) -> ImageTagger:
        return ImageTagger(
            self.config, len(self.labels.names), self.labels.bucket_counts, rngs=rngs
        )

    def init(self, key: jax.Array) -> dict[str, Any]:
        """Parameters and statistics; the tags' biases start at their logarithmic odds."""
        model = self._model(nnx.Rngs(params=key))
        share = self.labels.counts / len(self.labels.rows["train"])
        share = np.clip(share, _RAREST, 1 - _RAREST).astype(np.float32)
        bias = model.tags.bias
        assert bias is not None
        bias[...] = jnp.log(share) - jnp.log1p(-share)
        _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        return {"params": {"net": nnx.to_pure_dict(params)}, "stats": nnx.to_pure_dict(stats)}

    def context(self) -> Mapping[str, np.ndarray]:
        """Tags [N+1, K] and buckets [N+1] of all items."""
        return {"tags": self.labels.tags} | {
            f"bucket_{name}": values for name, values in self.labels.buckets.items()
        }

    def table_rows(self, context: Any, batch: Any) -> dict[str, jax.Array]:
        """None."""
        return {}

    def loss(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, tuple[Any, Any]]]]:
        """Weighted sum of the objectives, means over the batch's weights."""
        goal = self.objective
        moved, moved_again, painted, cut, dropped = jax.random.split(key, 5)
        weight, item = batch[WEIGHT], batch[ITEM]
        pixels = batch[IMAGE].astype(jnp.float32) / 255
        images = augment.move(moved, pixels, self.augmentation)
        if goal.content:
            other = augment.move(moved_again, pixels, self.augmentation)
            other = augment.repaint(painted, other, self.augmentation.repaint)
            # Interleaved, so that both views of a drawing are on one device.
            images = jnp.stack([images, other], axis=1).reshape(-1, *images.shape[1:])
            weight, item = jnp.repeat(weight, 2), jnp.repeat(item, 2)
        across = jax.random.bernoulli(cut, 0.5, (len(images),)) if goal.style else None
        model = nnx.merge(self._graph, net, stats)
        output = model(images, train=True, across=across, key=dropped)

        count = jnp.maximum(weight.sum(), 1.0)
        total, metrics = jnp.float32(0), {}

        def add(name: str, factor: float, each: jax.Array, weights: jax.Array) -> None:
            nonlocal total
            summed, n = jnp.sum(each * weights), jnp.sum(weights)
            total += factor * summed / jnp.maximum(n, 1.0)
            metrics[name] = (summed, n)

        if goal.tags:
            label = self._multi_hot(context, item)
            add("tags_loss", goal.tags, multi_label(output.tags, label, goal.label_loss), weight)
        if goal.popularity:
            each, known = self._popularity(output, context, item)
            add("popularity_loss", goal.popularity, each, known * weight)
        if goal.content:
            # What all drawings share would else be most of every cosine.
            content = standardised(output.content, weight)
            pairs = content.reshape(-1, 2, content.shape[-1])
            each, right = agreement(
                pairs[:, 0], pairs[:, 1], batch[WEIGHT], goal.content_temperature
            )
            add("content_loss", goal.content, each, batch[WEIGHT])
            metrics["content_found"] = (jnp.sum(right * batch[WEIGHT]), jnp.sum(batch[WEIGHT]))
        if goal.style:
            one, other = output.styles
            each, right = agreement(one, other, weight, goal.style_temperature)
            add("style_loss", goal.style, each, weight)
            metrics["style_found"] = (jnp.sum(right * weight), count)
            if goal.style_redundancy:
                both = (redundancy(half, weight) for half in output.styles)
                redundant = sum(both) / len(output.styles)
                total += goal.style_redundancy * redundant
                metrics["style_redundancy"] = (redundant * count, count)
        stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return total, (stats, metrics)

    def predict(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Probability [B, T] of each tag, float32, and the weight [B] of the example."""
        model = nnx.merge(self._graph, net, stats)
        output = model(batch[IMAGE].astype(jnp.float32) / 255)
        return {"tags": jax.nn.sigmoid(output.tags), "weight": batch[WEIGHT]}

    def encoder(self, params: Any, stats: Any) -> ImageEncoder:
        """The encoder alone, with trained weights; the heads are dropped."""
        encoder = ImageEncoder(self.config.image, rngs=HostDraws(0))
        for kind, values in ((nnx.Param, params["net"]), (nnx.BatchStat, stats)):
            fill_nested(encoder, kind, values["encoder"])
        return encoder

    def _multi_hot(self, context: Any, item: jax.Array) -> jax.Array:
        places = context["tags"][item]
        # Padding points behind the last tag and is dropped.
        label = jnp.zeros((len(places), len(self.labels.names)), jnp.float32)
        return label.at[jnp.arange(len(places))[:, None], places].set(1.0, mode="drop")

    def _popularity(
        self, output: TaggerOutput, context: Any, item: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean cross-entropy over the columns known for an item, and whether any is."""
        total, known = jnp.zeros(len(item)), jnp.zeros(len(item))
        for name, logit in output.popularity.items():
            bucket = context[f"bucket_{name}"][item]
            each = optax.softmax_cross_entropy_with_integer_labels(logit, jnp.maximum(bucket, 0))
            total += jnp.where(bucket >= 0, each, 0.0)
            known += bucket >= 0
        return total / jnp.maximum(known, 1.0), (known > 0).astype(jnp.float32)


def evaluator(
    source: PictureSource,
    labels: ImageTags,
    threshold: float,
    cutoffs: tuple[int, ...],
    final_only: bool = False,
) -> Evaluator:
    """Measures predicted tags, see multi_label_metrics.evaluate; broken pictures do not count."""

    def metrics(arrays: Arrays) -> dict[str, float]:
        label, probability = judged(source, labels, arrays)
        return multi_label_metrics.evaluate(label, probability, threshold, cutoffs)

    return Evaluator(source, metrics, final_only)


def judged(
    source: PictureSource, labels: ImageTags, arrays: Arrays
) -> tuple[np.ndarray, np.ndarray]:
    """True tags, bool [E, T], and their probabilities, for the pictures that could be decoded."""
    usable = arrays["weight"] > 0
    rows = source.column(ITEM)[usable]
    label = np.zeros((len(rows), len(labels.names) + 1), bool)
    label[np.arange(len(rows))[:, None], labels.tags[rows]] = True
    return label[:, :-1], arrays["tags"][usable]
