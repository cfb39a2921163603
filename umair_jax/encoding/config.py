"""What is extracted from a catalogue, and how."""

from __future__ import annotations

import dataclasses

from umair_jax import pretrained
from umair_jax.data.images import PIXEL_LIMIT
from umair_jax.models.image_encoder import ImageEncoderConfig
from umair_jax.models.text_encoder import TextEncoderConfig

TEXT_FIELDS = ("tags", "title", "description")


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """The two encoders and how they run over a catalogue.

    Attributes:
        image: The image encoder.
        text: The text encoder; its `vocabulary` is replaced by the tokenizer's size.
        text_fields: Which texts of an item are joined, in this order: "tags", "title",
            "description".
        tag_separator: Between two tags.
        vocabulary_size: Upper limit of the vocabulary that is learned from the data set.
        max_tokens: Length of a text, start and end marks included; the rest is cut off.
        image_batch: Pictures per call, over all devices of this host.
        text_batch: Rows per call, over all devices of this host; short texts share a row.
        shard_items: Items per file of the bank: what an interruption can cost.
        calibration_images: Size of the sample on which the statistics of an untrained network are
            measured, and to which heads that the weights do not bring are fitted.
        decode_threads: Threads that decode pictures while the encoder computes.
        decode_workers: Processes that do so in their place, for machines with more cores than
            one interpreter can feed; 0 = threads.
        pixel_limit: Largest width x height of a picture.
        max_bad_share: Largest accepted share of pictures that are there but cannot be decoded.
        seed: Of initial weights and of the calibration sample.
        store_dtype: "float32" or "float16": vectors on disk.
        image_weights: Trained image encoder: a safetensors file of its weights; "builtin" = the one
            that comes with the package; "" = untrained. Where the file says that it has another
            style head or whitening than `image`, its network is taken alone.
        text_weights: Trained text encoder with its tokenizer: a folder, see encoding.text_model;
            "builtin" = the one that comes with the package; "" = an untrained one, with words
            learned from the catalogue.
    """

    image: ImageEncoderConfig = dataclasses.field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = dataclasses.field(default_factory=TextEncoderConfig)
    text_fields: tuple[str, ...] = ("tags", "title")
    tag_separator: str = " "
    vocabulary_size: int = 16_000
    max_tokens: int = 32
    image_batch: int = 64
    text_batch: int = 64
    shard_items: int = 512
    calibration_images: int = 512
    decode_threads: int = 2
    decode_workers: int = 0
    pixel_limit: int = PIXEL_LIMIT
    max_bad_share: float = 0.2
    seed: int = 0
    store_dtype: str = "float32"
    image_weights: str = ""
    text_weights: str = ""

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
        for name in ("calibration_images", "decode_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more.")
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

    @property
    def widths(self) -> dict[str, int]:
        """Of the vectors "content", "style" and "text"; weights of other widths are refused."""
        return {
            "content": self.image.content_width,
            "style": self.image.style_width,
            "text": self.text.vector_width,
        }

    @property
    def image_weights_file(self) -> str:
        """The file that `image_weights` means; "" without any."""
        return pretrained.image_encoder(self.image_weights)
