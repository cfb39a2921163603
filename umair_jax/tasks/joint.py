"""End to end: the ranker's loss trains the image encoder and the text encoder as well.

In training the distinct items of a batch are encoded and their vectors gathered to the examples.
For an evaluation the whole catalogue is encoded once with the weights of the moment, and the ranker
then reads vectors as the main job does: a prediction depends on nothing else in its batch.

Users' interest vectors stay what the feature bank gives, as of the start: they are means over up to
dozens of earlier bookmarks, each of which would have to be encoded for every example.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.data.item_batches import ITEMS, LENGTH, PIXELS, SLOT, TOKENS, EncoderInputs
from umair_jax.data.ranking import RankingData
from umair_jax.data.ranking_config import VECTORS, RankingConfig
from umair_jax.data.standardise import SMALLEST_GRAM
from umair_jax.models.image_encoder import ImageEncoder
from umair_jax.models.initialise import HostDraws
from umair_jax.models.inputs import InputShapes
from umair_jax.models.layers import check_choice
from umair_jax.models.text_encoder import TextEncoder
from umair_jax.models.weights import fill_nested
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training.sharding import BatchPlacer

_ENCODED = "encoded"
BATCH_NORMS = ("frozen", "batch")


@dataclasses.dataclass(frozen=True)
class JointConfig:
    """How the encoders learn with the ranker.

    Attributes:
        batch_norm: "frozen": the image encoder normalises with its statistics of the start, so
            that a vector is the same whichever items share its batch, and the same in training
            and evaluation. A batch has few items, the popular ones over and over: poor statistics,
            and the whitening was fitted to others. "batch": those of the batch's distinct items,
            which update the running ones (items without a picture count as white).
        encode_batch: Items that are encoded at once for an evaluation, over all devices.
    """

    batch_norm: str = "frozen"
    encode_batch: int = 64

    def __post_init__(self):
        check_choice("joint batch_norm", self.batch_norm, BATCH_NORMS)
        if self.encode_batch < 1:
            raise ValueError(
                f"joint encode_batch: got {self.encode_batch}, expected 1 or more items"
            )


class JointTask(BookmarksTask):
    """A ranker with its encoders, as pure functions for the training loop.

    Parameters of the network are {"ranker", "image", "text"}, statistics {"ranker", "image"}.
    Training batches are those of DistinctItemSource; to predict, those of BookmarksTask do.
    """

    name = "joint"

    def __init__(
        self,
        data: RankingData,
        config: InputShapes,
        inputs: EncoderInputs,
        image: ImageEncoder,
        text: TextEncoder,
        features: RankingConfig,
        scales: Mapping[str, tuple[np.ndarray, np.ndarray]],
        options: JointConfig,
    ) -> None:
        """Prepares the shapes; keeps the encoders' weights on the host.

        Args:
            data: Schema and context, with the vectors of the start.
            config: As in BookmarksTask.
            inputs: What the encoders read of every item.
            image: The image encoder that training starts from.
            text: Likewise the text encoder.
            features: What `data` was built with.
            scales: Mean and deviation of the vectors of the start, see ranking_vectors.scales.
            options: See JointConfig.

        Raises:
            ValueError: As in BookmarksTask; the ranker reads bookmarked items one by one, or the
                vectors of the context are not float32.
        """
        super().__init__(data, config)
        if config.reads_history:
            raise ValueError(
                "model: got a ranker that reads bookmarked items one by one, expected one that "
                "does not: their vectors would be those of other weights; train it with "
                "config.task 'bookmarks'"
            )
        if features.vector_dtype != "float32":
            raise ValueError(
                f"features vector_dtype: got {features.vector_dtype!r}, expected 'float32': vectors"
                " that are trained are not rounded"
            )
        self.encoder_inputs, self.options = inputs, options
        self._features, self._scales = features, dict(scales)
        self._shapes = image.cfg, text.cfg
        self._image, params, stats = nnx.split(image, nnx.Param, nnx.BatchStat)
        self._text, words = nnx.split(text, nnx.Param)
        towers = {"image": nnx.to_pure_dict(params), "text": nnx.to_pure_dict(words)}
        self._start = jax.device_get((towers, nnx.to_pure_dict(stats)))
        self._encode: tuple[Mesh, Callable[..., Any]] | None = None

    def init(self, key: jax.Array) -> dict[str, Any]:
        """The ranker's parameters as BookmarksTask draws them, the encoders' as they are given."""
        made = super().init(key)
        towers, stats = jax.tree.map(jnp.asarray, self._start)
        params = made["params"] | {"net": {"ranker": made["params"]["net"], **towers}}
        return {"params": params, "stats": {"ranker": made["stats"], "image": stats}}

    def loss(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, tuple[Any, Any]]]]:
        """That of BookmarksTask, on vectors of this batch's items as the encoders give them now."""
        present = context["present"].at[batch[ITEMS]].get(mode="promise_in_bounds")
        vectors, image = self._vectors(
            net, stats["image"], batch, present, train=True, key=jax.random.fold_in(key, 1)
        )
        loss, (ranker, metrics) = super().loss(
            net, rows, stats, {**context, _ENCODED: vectors}, batch, key
        )
        return loss, ({"ranker": ranker, "image": image}, metrics)

    def model(self, net: Any, stats: Any) -> Any:
        """The ranker with these parameters and statistics."""
        return super().model(net["ranker"], stats["ranker"])

    def refreshed(
        self,
        params: Any,
        stats: Any,
        context: Mapping[str, Any],
        mesh: Mesh,
        stop: Callable[[], bool] = lambda: False,
    ) -> Mapping[str, jax.Array] | None:
        """The vectors that these weights give all items, each of which is encoded once.

        Args:
            params: Parameters, on the mesh.
            stats: Statistics, on the mesh.
            context: The arrays of `context()`, on the mesh.
            mesh: Where everything is.
            stop: Asked between batches; True gives up.

        Returns:
            "content", "style" and "text", as far as the schema has them, in place of those of the
            context; None if told to stop.
        """
        if self._encode is None or self._encode[0] != mesh:
            self._encode = mesh, self._compiled(mesh)
        encode, devices = self._encode[1], mesh.shape["data"]
        size = -(-self.options.encode_batch // devices) * devices
        place, count = BatchPlacer(mesh, size), len(self.encoder_inputs.pixels)
        net = {name: params["net"][name] for name in ("image", "text")}
        pending: deque[Any] = deque()
        parts: list[dict[str, np.ndarray]] = []
        for start in range(0, count, size):
            if stop():
                return None
            rows = np.minimum(np.arange(start, start + size), count - 1)
            batch = place(self.encoder_inputs.take(rows[place.rows]))
            pending.append(encode(net, stats["image"], context["present"], batch))
            # Read a batch while the next one is computed.
            if len(pending) > 1:
                parts.append(jax.device_get(pending.popleft()))
        parts.extend(jax.device_get(left) for left in pending)
        found = {
            name: np.concatenate([part[name] for part in parts])[:count]
            for name in self._modalities
        }
        return {name: _like(context[name], found[name]) for name in found}

    def _compiled(self, mesh: Mesh) -> Callable[..., Any]:
        def encode(net: Any, stats: Any, present: Any, batch: Any) -> Any:
            return self._vectors(net, stats, batch, present[batch[ITEMS]])[0]

        return jax.jit(encode, out_shardings=NamedSharding(mesh, P()))

    def encoders(self, net: Any, stats: Any) -> tuple[ImageEncoder, TextEncoder]:
        """Image and text encoder with trained weights, off the mesh.

        Args:
            net: Parameters of the network.
            stats: Statistics.
        """
        image = ImageEncoder(self._shapes[0], rngs=HostDraws(0))
        text = TextEncoder(self._shapes[1], rngs=HostDraws(0))
        for module, kind, values in (
            (image, nnx.Param, net["image"]),
            (image, nnx.BatchStat, stats["image"]),
            (text, nnx.Param, net["text"]),
        ):
            fill_nested(module, kind, values)
        return image, text

    def arrays(self, context: Any, batch: Any) -> dict[str, jax.Array]:
        """As in InteractionsTask; vectors of items that are encoded already come from there."""
        found = super().arrays(context, batch)
        if _ENCODED not in context:
            return found
        encoded, slot = context[_ENCODED], batch[SLOT]
        return found | {
            name: encoded[name].at[slot].get(mode="promise_in_bounds") for name in self._modalities
        }

    def _vectors(
        self,
        net: Any,
        stats: Any,
        batch: Any,
        present: jax.Array,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], Any]:
        """Vectors of U items by name, as ranking.build gives those of a bank; new statistics."""
        image, text = (
            nnx.merge(self._image, net["image"], stats),
            nnx.merge(self._text, net["text"]),
        )
        learns = train and self.options.batch_norm == "batch"
        seen = image(batch[PIXELS].astype(jnp.float32) / 255, train=learns)
        mask = jnp.arange(batch[TOKENS].shape[1]) < batch[LENGTH][:, None]
        read = text(batch[TOKENS], mask, train=train, key=key)
        vectors = {"content": seen.content, "style": seen.style, "text": read}
        there = dict(zip(VECTORS, present.T, strict=True))
        vectors = {name: self._scaled(name, x, there[name]) for name, x in vectors.items()}
        return vectors, nnx.to_pure_dict(nnx.state(image, nnx.BatchStat)) if learns else stats

    def _scaled(self, name: str, vectors: jax.Array, present: jax.Array) -> jax.Array:
        """What ranking.build makes of a vector, with the moments of the start."""
        if name in self._features.zero:
            return jnp.zeros_like(vectors)
        if name == "style" and self._features.log_style:
            vectors = jnp.log(jnp.maximum(vectors, SMALLEST_GRAM))
        if name in self._scales:
            mean, deviation = (jnp.asarray(x, jnp.float32) for x in self._scales[name])
            vectors = (vectors - mean) / deviation
        return jnp.where(present[:, None], vectors, 0.0)


def _like(placed: jax.Array, values: np.ndarray) -> jax.Array:
    """Values where another array is, with as many zero rows behind them as it has."""
    padded = np.pad(values, [(0, placed.shape[0] - len(values)), (0, 0)])
    return jax.make_array_from_callback(placed.shape, placed.sharding, lambda at: padded[at])
