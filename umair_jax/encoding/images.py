"""The image half of extraction: calibrated or trained weights, and vectors."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float32, UInt8

from umair_jax import settings
from umair_jax.encoding.config import ExtractConfig
from umair_jax.encoding.decode import Decoded, Pictures, decoded_batches, in_batches
from umair_jax.encoding.frozen import frozen, mesh_for
from umair_jax.models import weights
from umair_jax.models.folding import FoldedImageEncoder
from umair_jax.models.image_encoder import (
    ImageEncoder,
    ImageEncoderConfig,
    ImageVectors,
    batch_statistics,
    fit_whitening,
)
from umair_jax.models.initialise import HostDraws

# Settings of an encoder under which the same weights mean the same.
_FREE = ("image_size", "last_gamma", "dtype", "remat")
# How the vectors are read off it: what this needs can be fitted to any catalogue.
_HEADS = ("style", "whiten_content", "whiten_style", "whiten_shrinkage")


class Encoded(NamedTuple):
    """The vectors of a batch of pictures; zeros where there is no usable one."""

    content: Float32[np.ndarray, "n C"]
    style: Float32[np.ndarray, "n S"]
    decoded: Decoded


class FrozenImageEncoder:
    """An image encoder with fixed weights, compiled for this host."""

    def __init__(self, config: ExtractConfig, model: ImageEncoder, mesh: Mesh | None = None):
        self.config, self.model = config, model
        mesh = mesh or mesh_for(config.image_batch)
        self._call = frozen(FoldedImageEncoder(model), mesh, lambda model, x: model(_unit(x)))

    def start(self, images: UInt8[np.ndarray, "B S S 3"]) -> Any:
        """Begins to encode a full batch; returns device arrays (content, style)."""
        return self._call(images)

    def encode(self, pictures: Pictures, batches: Sequence[Sequence[int]]) -> Iterator[Encoded]:
        """Encodes the pictures of batches of rows in order."""
        pending: tuple[Any, Decoded] | None = None
        for decoded in decoded_batches(pictures, batches, self.config):
            # The next batch is on its way before the vectors of this one are waited for.
            started = self.start(decoded.images), decoded
            if pending is not None:
                yield _finished(*pending)
            pending = started
        if pending is not None:
            yield _finished(*pending)


def _finished(vectors: Any, decoded: Decoded) -> Encoded:
    good = decoded.usable[:, None]
    content, style = (np.where(good, np.asarray(x)[: len(good)], 0) for x in vectors)
    return Encoded(content, style, decoded)


def _unit(images: Any) -> Any:
    return images.astype(jnp.float32) / 255


def build(pictures: Pictures, rows: Sequence[int], config: ExtractConfig) -> ImageEncoder:
    """The trained encoder where the configuration names weights, else a random calibrated one.

    Weights that say they are for the same network with another style head or whitening give their
    network; head and whitening are then fitted to the catalogue.

    Args:
        pictures: A sample of them gives statistics and whitening to what has none.
        rows: All rows that hold items.
        config: What to build.

    Raises:
        ValueError: The weights are for something else, or cannot be read as the config asks.
    """
    image = ImageEncoder(config.image, rngs=HostDraws(config.seed))
    if config.image_weights:
        path = config.image_weights_file
        check_settings(config.image, path)
        stored = _stored(config.image, path)
        if stored == config.image:
            weights.load(image, path)
            return image
        if config.image.style.projection or not config.calibration_images:
            raise ValueError(
                f"config.extract: the weights {path} are for another style head or whitening; "
                "expected style.projection 0 and calibration_images above 0, to fit others to the "
                "catalogue"
            )
        trained = ImageEncoder(stored, rngs=HostDraws(0))
        weights.load(trained, path)
        nnx.update(image.backbone, nnx.state(trained.backbone))
    if config.calibration_images:
        order = np.random.default_rng(config.seed).permutation(np.asarray(rows))
        sample = order[: config.calibration_images].tolist()
        batches = in_batches(sample, config.image_batch)
        head_alone = bool(config.image_weights)
        used = calibrate(image, decoded_batches(pictures, batches, config), head_alone)
        if used > 1:  # else whoever encodes the rest finds out and says what is wrong with them
            whiten(image, decoded_batches(pictures, batches, config))
    return image


def _stored(config: ImageEncoderConfig, path: str | os.PathLike[str]) -> ImageEncoderConfig:
    """The encoder that a file holds; where it does not say, the one that is asked for."""
    recorded = weights.read_settings(path)
    heads = {name: recorded[name] for name in _HEADS if name in recorded}
    return settings.build(
        ImageEncoderConfig, {**dataclasses.asdict(config), **heads}, f"{path}: settings"
    )


def check_settings(config: ImageEncoderConfig, path: str | os.PathLike[str]) -> None:
    """Refuses weights that say they are for an encoder which would compute something else.

    Raises:
        ValueError: Settings of the network differ.
    """
    recorded = weights.read_settings(path)
    ours = json.loads(json.dumps(dataclasses.asdict(config)))
    wrong = [
        f"{name}: got {ours[name]}, expected {value}"
        for name, value in recorded.items()
        if name in ours and name not in (*_FREE, *_HEADS) and ours[name] != value
    ]
    if wrong:
        raise ValueError(
            f"config.extract.image does not describe the weights {path}: {'; '.join(wrong)}; "
            "set what is expected, or take other weights"
        )


def calibrate(encoder: ImageEncoder, batches: Iterable[Decoded], head_alone: bool = False) -> int:
    """Sets the running statistics to their mean over batches; returns the pictures used.

    Those of the whole encoder, as far as they run in training, or of the style head alone.

    Pictures that cannot be used are replaced by repeating the others of the batch, so that
    padding never enters the statistics.
    """
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    state = (nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
    measure = jax.jit(
        lambda state, x: batch_statistics(nnx.merge(graph, *state), _unit(x), head_alone)
    )
    total, count, used = None, 0, 0
    for batch in batches:
        good = np.flatnonzero(batch.usable)
        if not len(good):
            continue
        filled = batch.images[np.resize(good, len(batch.images))]
        measured = measure(state, filled)
        total = measured if total is None else jax.tree.map(jnp.add, total, measured)
        count, used = count + 1, used + len(good)
    if total is not None:
        variables = nnx.state(encoder, nnx.BatchStat)
        nnx.replace_by_pure_dict(variables, jax.tree.map(lambda x: x / count, total))
        nnx.update(encoder, variables)
    return used


def whiten(encoder: ImageEncoder, batches: Iterable[Decoded]) -> None:
    """Fits the encoder's whitening to batches of pictures; nothing happens if it has none."""
    if not (encoder.cfg.whiten_content or encoder.cfg.whiten_style):
        return
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    state = (nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    @jax.jit
    def read(state: Any, images: Any) -> ImageVectors:
        model = nnx.merge(graph, *state)
        content, (style,) = model.read(model.maps(_unit(images)))
        return ImageVectors(content, style)

    def vectors() -> Iterator[ImageVectors]:
        for batch in batches:
            good = np.flatnonzero(batch.usable)
            content, style = read(state, batch.images)
            yield ImageVectors(content[good], style[good])

    fit_whitening(encoder, vectors())
