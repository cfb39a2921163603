"""The image half of extraction: pictures decoded ahead, calibrated or trained weights, vectors."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, UInt8

from umair_jax.data import images as image_files
from umair_jax.encoding.config import ExtractConfig
from umair_jax.encoding.frozen import frozen, mesh_for
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig, batch_statistics
from umair_jax.models.initialise import HostDraws

# Settings of an encoder under which the same weights mean the same.
_FREE = ("image_size", "last_gamma", "dtype", "remat")


@runtime_checkable
class Pictures(Protocol):
    """Where encoded pictures come from."""

    def image_bytes(self, row: int) -> bytes | None:
        """The encoded picture of a row; None or empty where the item has none."""
        ...


class Decoded(NamedTuple):
    """A batch of pictures, padded to the full batch size with white ones."""

    images: UInt8[np.ndarray, "B S S 3"]
    usable: Bool[np.ndarray, "n"]
    reasons: tuple[tuple[int, str], ...]
    """(row, reason) of pictures that are there but broken."""
    missing: int
    """Items without a picture."""


def decoded_batches(
    catalogue: Pictures, rows: Sequence[int], config: ExtractConfig, pool: ThreadPoolExecutor
) -> Iterator[Decoded]:
    """Decodes the pictures of `rows` in order, some batches ahead of the caller.

    Bytes are read by the calling thread (sources need not be thread-safe) and decoded by the pool.
    """
    size, batch = config.image.image_size, config.image_batch

    def task(data: bytes) -> UInt8[np.ndarray, "S S 3"] | str:
        try:
            return image_files.load_square(data, size, config.pixel_limit)
        except image_files.BadImage as error:
            return str(error)

    ahead: deque[Future | None] = deque()
    position = 0
    for start in range(0, len(rows), batch):
        while position < min(len(rows), start + 3 * batch):
            data = catalogue.image_bytes(rows[position])
            ahead.append(pool.submit(task, data) if data else None)
            position += 1
        chosen = rows[start : start + batch]
        squares = np.full((batch, size, size, 3), 255, np.uint8)
        usable = np.zeros(len(chosen), bool)
        reasons, missing = [], 0
        for i, row in enumerate(chosen):
            future = ahead.popleft()
            if future is None:
                missing += 1
                continue
            result = future.result()
            if isinstance(result, str):
                reasons.append((int(row), result))
            else:
                squares[i], usable[i] = result, True
        yield Decoded(squares, usable, tuple(reasons), missing)


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
        self._call = frozen(model, mesh, lambda model, x: model(_unit(x)))

    def start(self, images: UInt8[np.ndarray, "B S S 3"]) -> Any:
        """Begins to encode a full batch; returns device arrays (content, style)."""
        return self._call(images)

    def encode(
        self, pictures: Pictures, rows: Sequence[int], pool: ThreadPoolExecutor
    ) -> Iterator[Encoded]:
        """Encodes the pictures of `rows` in order, a batch at a time."""
        pending: tuple[Any, Decoded] | None = None
        for decoded in decoded_batches(pictures, rows, self.config, pool):
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


def build(
    pictures: Pictures, rows: Sequence[int], config: ExtractConfig, pool: ThreadPoolExecutor
) -> ImageEncoder:
    """The trained encoder where the configuration names weights, else a random calibrated one.

    Args:
        pictures: A sample of them gives the statistics of an untrained encoder.
        rows: All rows that hold items.
        config: What to build.
        pool: Decodes the sample.
    """
    image = ImageEncoder(config.image, rngs=HostDraws(config.seed))
    if config.image_weights:
        check_settings(config.image, config.image_weights)
        weights.load(image, config.image_weights)
    elif config.calibration_images:
        order = np.random.default_rng(config.seed).permutation(np.asarray(rows))
        sample = order[: config.calibration_images].tolist()
        calibrate(image, decoded_batches(pictures, sample, config, pool))
    return image


def check_settings(config: ImageEncoderConfig, path: str | os.PathLike[str]) -> None:
    """Refuses weights that say they are for an encoder which would compute something else.

    Raises:
        ValueError: Settings differ, shapes apart from those of the pictures included.
    """
    recorded = weights.read_settings(path)
    ours = json.loads(json.dumps(dataclasses.asdict(config)))
    wrong = [
        f"{name}: got {ours[name]}, expected {value}"
        for name, value in recorded.items()
        if name in ours and name not in _FREE and ours[name] != value
    ]
    if wrong:
        raise ValueError(
            f"config.extract.image does not describe the weights {path}: {'; '.join(wrong)}; "
            "set what is expected, or take other weights"
        )


def calibrate(encoder: ImageEncoder, batches: Iterable[Decoded]) -> int:
    """Sets the BatchNorm statistics to their mean over batches; returns the pictures used.

    Pictures that cannot be used are replaced by repeating the others of the batch, so that
    padding never enters the statistics.
    """
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    state = (nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
    measure = jax.jit(lambda state, x: batch_statistics(nnx.merge(graph, *state), _unit(x)))
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
