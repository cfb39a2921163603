"""Both encoders with their tokenizer: built, calibrated, kept on disk, run over batches."""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float32, UInt8
from tokenizers import Tokenizer

from umair_jax.data import images as image_files
from umair_jax.data.tokenizer import encode_texts, load_tokenizer, train_tokenizer
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig, batch_statistics
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig

TEXT_FIELDS = ("tags", "title", "description")
FILES = ("tokenizer.json", "image_encoder.safetensors", "text_encoder.safetensors")


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """What is extracted, and how.

    Attributes:
        image: The image encoder.
        text: The text encoder; its `vocabulary` is replaced by the tokenizer's size.
        text_fields: Which texts of an item are joined, in this order: "tags", "title",
            "description".
        tag_separator: Between two tags.
        vocabulary_size: Upper limit of the vocabulary that is learned from the data set.
        max_tokens: Length of a text, start and end marks included; the rest is cut off.
        image_batch: Pictures per call, over all devices of this host.
        text_batch: Texts per call, over all devices of this host.
        shard_items: Items per file of the bank: what an interruption can cost.
        calibration_images: Size of the sample on which an untrained network's BatchNorm statistics
            are measured; rounded down to whole batches.
        decode_threads: Threads that decode pictures while the encoder computes.
        pixel_limit: Largest width x height of a picture.
        max_bad_share: Largest accepted share of pictures that are there but cannot be decoded.
        seed: Of initial weights and of the calibration sample.
        store_dtype: "float32" or "float16": vectors on disk.
        image_weights: Trained image encoder (a safetensors file of its weights); "" = untrained.
        text_weights: Trained text encoder; "" = untrained.
        tokenizer: The tokenizer.json that belongs to `text_weights`; "" = learn one.
    """

    image: ImageEncoderConfig = dataclasses.field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = dataclasses.field(default_factory=TextEncoderConfig)
    text_fields: tuple[str, ...] = ("tags", "title")
    tag_separator: str = " "
    vocabulary_size: int = 16_000
    max_tokens: int = 32
    image_batch: int = 64
    text_batch: int = 256
    shard_items: int = 512
    calibration_images: int = 512
    decode_threads: int = 2
    pixel_limit: int = image_files.PIXEL_LIMIT
    max_bad_share: float = 0.2
    seed: int = 0
    store_dtype: str = "float32"
    image_weights: str = ""
    text_weights: str = ""
    tokenizer: str = ""

    def __post_init__(self):
        unknown = sorted(set(self.text_fields) - set(TEXT_FIELDS))
        if unknown or not self.text_fields:
            raise ValueError(
                f"text_fields: got {self.text_fields}, expected one or more of {TEXT_FIELDS}."
            )
        positive = ("image_batch", "text_batch", "shard_items", "decode_threads", "pixel_limit")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1.")
        if self.calibration_images < 0:
            raise ValueError(
                f"calibration_images: got {self.calibration_images}, expected 0 or more."
            )
        if not 3 <= self.max_tokens <= self.text.max_positions:
            raise ValueError(
                f"max_tokens: got {self.max_tokens}, expected 3 to the text encoder's "
                f"max_positions, {self.text.max_positions}."
            )
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max_bad_share: got {self.max_bad_share}, expected 0 to 1.")
        if self.store_dtype not in ("float32", "float16"):
            raise ValueError(
                f"store_dtype: got {self.store_dtype!r}, expected 'float32' or 'float16'."
            )
        if bool(self.text_weights) != bool(self.tokenizer):
            raise ValueError(
                f"text_weights and tokenizer: got {self.text_weights!r} and {self.tokenizer!r}, "
                "expected both or neither: trained weights mean nothing with another vocabulary."
            )


@runtime_checkable
class ItemTexts(Protocol):
    """The columns read here; row 0 is a placeholder."""

    @property
    def title(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def tags(self) -> Sequence[Sequence[str]]: ...  # noqa: D102
    @property
    def description(self) -> Sequence[str]: ...  # noqa: D102


@runtime_checkable
class Catalogue(Protocol):
    """What extraction needs of a data set."""

    @property
    def catalogue_fingerprint(self) -> str:
        """Changes when any text or picture changes."""
        ...

    @property
    def items(self) -> ItemTexts:
        """Texts by row."""
        ...

    def image_bytes(self, row: int) -> bytes | None:
        """The encoded picture of a row; None or empty where the item has none."""
        ...


def item_text(items: ItemTexts, row: int, config: ExtractConfig) -> str:
    """The text that stands for an item."""
    parts = {
        "tags": config.tag_separator.join(items.tags[row]),
        "title": items.title[row],
        "description": items.description[row],
    }
    return " ".join(parts[field] for field in config.text_fields if parts[field].strip())


class Decoded(NamedTuple):
    """A batch of pictures, padded to the full batch size with white ones."""

    images: UInt8[np.ndarray, "B S S 3"]
    usable: Bool[np.ndarray, "n"]
    reasons: tuple[tuple[int, str], ...]
    """(row, reason) of pictures that are there but broken."""
    missing: int
    """Items without a picture."""


def decoded_batches(
    catalogue: Catalogue, rows: Sequence[int], config: ExtractConfig, pool: ThreadPoolExecutor
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


class Encoders:
    """Image encoder, tokenizer and text encoder with fixed weights, compiled for this host."""

    def __init__(
        self, config: ExtractConfig, image: ImageEncoder, text: TextEncoder, words: Tokenizer
    ):
        self.config, self.image, self.text, self.words = config, image, text, words
        devices = jax.local_devices()
        # The largest number of devices that divides both batches evenly.
        count = max(
            n
            for n in range(1, len(devices) + 1)
            if config.image_batch % n == 0 and config.text_batch % n == 0
        )
        mesh = jax.make_mesh((count,), ("data",), (AxisType.Auto,), devices=devices[:count])
        self._split, self._whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
        self._image_call = self._compile(image, lambda model, x: model(_unit(x)))
        self._text_call = self._compile(text, lambda model, tokens, mask: model(tokens, mask))

    def _compile(self, model: nnx.Module, call: Callable[..., Any]) -> Callable[..., Any]:
        graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        state = (nnx.to_pure_dict(params), nnx.to_pure_dict(stats))
        state = jax.device_put(state, self._whole)
        run = jax.jit(lambda state, *inputs: call(nnx.merge(graph, *state), *inputs))
        return lambda *inputs: run(state, *jax.device_put(inputs, self._split))

    def start_images(self, images: UInt8[np.ndarray, "B S S 3"]) -> Any:
        """Begins to encode a full batch; returns device arrays (content, style)."""
        return self._image_call(images)

    def encode_texts(
        self, texts: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "N D"], dict[str, int]]:
        """Vectors of texts, and how many tokens were unknown and texts cut off."""
        encoded = encode_texts(self.words, texts, self.config.max_tokens)
        batch = self.config.text_batch
        vectors = np.zeros((len(texts), self.config.text.vector_width), np.float32)
        for start in range(0, len(texts), batch):
            stop = min(start + batch, len(texts))
            pad = ((0, batch - (stop - start)), (0, 0))
            tokens = np.pad(encoded.tokens[start:stop], pad)
            mask = np.pad(encoded.mask[start:stop], pad)
            vectors[start:stop] = np.asarray(self._text_call(tokens, mask))[: stop - start]
        return vectors, {"unknown_tokens": encoded.unknown, "truncated_texts": encoded.truncated}

    def digest(self) -> str:
        """Changes with any weight, any setting of the encoders and the vocabulary."""
        return "-".join(
            (
                weights.digest(self.image, self.config.image)[:16],
                weights.digest(self.text, self.text.cfg)[:16],
            )
        )


def _unit(images: Any) -> Any:
    return images.astype(jnp.float32) / 255


def build(
    catalogue: Catalogue, rows: Sequence[int], config: ExtractConfig, pool: ThreadPoolExecutor
) -> Encoders:
    """Trained encoders where the configuration names weights, else random calibrated ones.

    Args:
        catalogue: Its texts give the vocabulary, a sample of its pictures the statistics.
        rows: All rows that hold items.
        config: What to build.
        pool: Decodes the sample.
    """
    words = _tokenizer(catalogue, rows, config)
    text_config = dataclasses.replace(config.text, vocabulary=words.get_vocab_size())
    text = TextEncoder(text_config, rngs=HostDraws(config.seed))
    image = ImageEncoder(config.image, rngs=HostDraws(config.seed))
    if config.text_weights:
        weights.load(text, config.text_weights)
    if config.image_weights:
        weights.load(image, config.image_weights)
    elif config.calibration_images:
        order = np.random.default_rng(config.seed).permutation(np.asarray(rows))
        sample = order[: config.calibration_images].tolist()
        calibrate(image, decoded_batches(catalogue, sample, config, pool))
    return Encoders(config, image, text, words)


def _tokenizer(catalogue: Catalogue, rows: Sequence[int], config: ExtractConfig) -> Tokenizer:
    if config.tokenizer:
        return load_tokenizer(config.tokenizer)
    items = catalogue.items
    texts = (
        text
        for row in rows
        for text in (items.title[row], *items.tags[row], items.description[row])
    )
    return train_tokenizer(texts, config.vocabulary_size)


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


def save(encoders: Encoders, folder: str | os.PathLike[str]) -> None:
    """Writes tokenizer and weights, so that later items go through the very same encoders."""
    words, image, text = (Path(folder) / name for name in FILES)
    encoders.words.save(str(words))
    weights.save(encoders.image, image)
    weights.save(encoders.text, text)


def load(folder: str | os.PathLike[str], config: ExtractConfig) -> Encoders:
    """Reads encoders that `save` wrote.

    Raises:
        ValueError: A file is missing, or does not fit the configuration.
    """
    words_file, image_file, text_file = (Path(folder) / name for name in FILES)
    words = load_tokenizer(words_file)
    text_config = dataclasses.replace(config.text, vocabulary=words.get_vocab_size())
    text = TextEncoder(text_config, rngs=HostDraws(config.seed))
    image = ImageEncoder(config.image, rngs=HostDraws(config.seed))
    weights.load(text, text_file)
    weights.load(image, image_file)
    return Encoders(config, image, text, words)
