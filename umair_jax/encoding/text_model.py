"""A text encoder and the tokenizer that it was trained with: one folder, read and written whole.

    found = read("runs/text_pairs")     # or "builtin", or a folder of sentence-transformers
    encoder = found.encoder()

A folder of ours holds text_encoder.safetensors, whose metadata tell the shape, and tokenizer.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from umair_jax import pretrained, settings
from umair_jax.data.tokenizer import load_tokenizer, table_size
from umair_jax.interop import sentence_transformers
from umair_jax.models import weights
from umair_jax.models.initialise import HostDraws
from umair_jax.models.text_encoder import TextEncoder, TextEncoderConfig

WEIGHTS, TOKENIZER = FILES = ("text_encoder.safetensors", "tokenizer.json")
_LONGEST = "max_tokens"
_FREE = ("dropout", "initial_std", "position_std", "dtype")
_KINDS = (".json", ".safetensors", ".bin")  # of files that sentence-transformers leaves


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A text encoder with its tokenizer.

    Attributes:
        config: Shape of the encoder.
        arrays: Its weights, by the paths of a `TextEncoder`.
        words: Its tokenizer.
        max_tokens: Longest text, marks included.
        origin: What kind of folder it was read from.
        dropped: Entries of the files that were left out, and why.
    """

    config: TextEncoderConfig
    arrays: dict[str, np.ndarray]
    words: Tokenizer
    max_tokens: int
    origin: str = "umair_jax"
    dropped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def encoder(
        self, config: TextEncoderConfig | None = None, where: str = "config"
    ) -> TextEncoder:
        """The network with these weights.

        Args:
            config: In place of the one that the weights come with. Only dropout, dtype and what
                initial weights hang on may differ; the vocabulary is not read.
            where: How this configuration is called in an error.

        Raises:
            ValueError: Another setting differs, or the weights do not fit.
        """
        shape = self.config
        if config is not None:
            shape = dataclasses.replace(config, vocabulary=shape.vocabulary)
            given, wanted = dataclasses.asdict(shape), dataclasses.asdict(self.config)
            wrong = [name for name in wanted if name not in _FREE and given[name] != wanted[name]]
            if wrong:
                raise ValueError(
                    f"{where}: got {', '.join(f'{name}={given[name]!r}' for name in wrong)}; "
                    f"expected {', '.join(f'{name}={wanted[name]!r}' for name in wrong)}, as the "
                    "weights were trained with."
                )
        encoder = TextEncoder(shape, rngs=HostDraws(0))
        weights.fill(encoder, self.arrays)
        return encoder


def read(place: str | os.PathLike[str]) -> TextModel:
    """Reads a text model; nothing in its folder is executed.

    Args:
        place: A folder that `write` or sentence-transformers left, or "builtin".

    Raises:
        ValueError: A file is missing, cannot be read, or does not fit the others.
    """
    folder = Path(pretrained.text_model(str(place)))
    if (folder / sentence_transformers.MODULES).is_file():
        found = sentence_transformers.read_sentence_transformers(folder)
        return TextModel(
            found.config,
            found.arrays,
            found.tokenizer,
            found.max_tokens,
            f"sentence-transformers, {found.family}",
            found.dropped,
        )
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"text model: got {str(place)!r}, expected a folder with {WEIGHTS} and {TOKENIZER}, "
            f"or one of sentence-transformers, with {sentence_transformers.MODULES}."
        )
    recorded = weights.read_settings(path)
    if not recorded:
        raise ValueError(f"{path}: got weights that do not say what shape they are for.")
    config = settings.build(TextEncoderConfig, recorded, f"{path}: settings")
    words = load_tokenizer(folder / TOKENIZER)
    if table_size(words) != config.vocabulary:
        raise ValueError(
            f"{folder / TOKENIZER}: got {table_size(words):,} tokens, expected the "
            f"{config.vocabulary:,} of {WEIGHTS} beside it."
        )
    longest = weights.read_metadata(path).get(_LONGEST, str(config.max_positions))
    return TextModel(config, weights.read(path), words, int(longest))


def digest(place: str | os.PathLike[str]) -> str:
    """SHA-256 of all files that a text model is read from, wherever they are."""
    folder = Path(pretrained.text_model(str(place)))
    paths = [folder / name for name in FILES]
    if (folder / sentence_transformers.MODULES).is_file():
        paths = sorted(path for path in folder.rglob("*") if path.suffix in _KINDS)
    total = hashlib.sha256()
    for path in paths:
        try:
            contents = path.read_bytes()
        except OSError as error:
            raise ValueError(f"text model: {str(path)!r} cannot be read: {error}") from error
        total.update(f"{path.relative_to(folder)} {len(contents)}".encode() + contents)
    return total.hexdigest()


def write(model: TextModel, folder: str | os.PathLike[str], *, dtype: str = "float32") -> None:
    """Writes a text model into a folder that is there.

    Raises:
        ValueError: A weight is too large for the dtype.
    """
    metadata = {
        weights.SETTINGS: json.dumps(dataclasses.asdict(model.config)),
        _LONGEST: str(model.max_tokens),
    }
    weights.write(model.arrays, Path(folder) / WEIGHTS, dtype=dtype, metadata=metadata)
    (Path(folder) / TOKENIZER).write_text(model.words.to_str(pretty=False) + "\n", "utf-8")
