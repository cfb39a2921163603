"""Trained weights that come with the package; the model cards beside them say how they were made.

A setting that takes a file or folder of weights takes "builtin" too: the ones from here.
"""

from __future__ import annotations

from pathlib import Path

BUILTIN = "builtin"
IMAGE_ENCODER = Path(__file__).with_name("image_encoder.safetensors")
TEXT_ENCODER = Path(__file__).with_name("text_encoder.safetensors")
TOKENIZER = Path(__file__).with_name("tokenizer.json")


def image_encoder(setting: str) -> str:
    """The file that `config.extract.image_weights` means; "" stays "", no weights at all."""
    return str(IMAGE_ENCODER) if setting == BUILTIN else setting


def text_model(setting: str) -> str:
    """The folder that `config.extract.text_weights` means; "" stays "", no weights at all."""
    return str(TEXT_ENCODER.parent) if setting == BUILTIN else setting
