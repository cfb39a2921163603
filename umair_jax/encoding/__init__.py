"""From pictures and texts to vectors: both encoders with their tokenizer, run over a catalogue."""

from umair_jax.encoding.config import TEXT_FIELDS, ExtractConfig
from umair_jax.encoding.decode import Decoded, Pictures, decoded_batches, in_batches
from umair_jax.encoding.images import FrozenImageEncoder, calibrate, whiten
from umair_jax.encoding.pair import FILES, Catalogue, Encoders, build, load, save
from umair_jax.encoding.texts import FrozenTextEncoder, ItemTexts, item_text

__all__ = [
    "FILES",
    "TEXT_FIELDS",
    "Catalogue",
    "Decoded",
    "Encoders",
    "ExtractConfig",
    "FrozenImageEncoder",
    "FrozenTextEncoder",
    "ItemTexts",
    "Pictures",
    "build",
    "calibrate",
    "decoded_batches",
    "in_batches",
    "item_text",
    "load",
    "save",
    "whiten",
]
