"""Folders of sentence-transformers for the text encoder, and its own for them; see convert."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

from umair_jax import settings
from umair_jax.encoding import text_model
from umair_jax.encoding.text_model import TextModel
from umair_jax.interop import files
from umair_jax.interop.sentence_transformers import write_sentence_transformers

TARGETS = ("umair", "sentence-transformers")


def convert_text(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str = "umair",
    dtype: str = "float32",
    console: Console | None = None,
) -> TextModel:
    """Reads a text encoder with its tokenizer and writes both as a folder.

    Args:
        source: A folder of sentence-transformers or of this package, or "builtin".
        target: The folder to make.
        to: "umair", for `config.extract.text_weights`; or "sentence-transformers".
        dtype: "float32", "float16" or "bfloat16": how the weights are stored.
        console: Where the report goes.

    Returns:
        What was found.

    Raises:
        ValueError: A folder or an option is not what it must be, see `text_model.read` and
            `write_sentence_transformers`.
    """
    console = console or Console()
    folder = Path(target)
    if to not in TARGETS:
        raise ValueError(f"--to: got {to!r}, expected one of {TARGETS} for a folder.")
    if folder.exists():
        raise ValueError(f"--output: got {str(target)!r}, which is there; expected a new folder.")
    if not folder.parent.is_dir():
        raise ValueError(
            f"--output: got no folder {str(folder.parent)!r}, expected one to write to."
        )
    found = text_model.read(source)
    if to == "umair":
        lines = _written(found, folder, dtype)
    else:
        write_sentence_transformers(
            found.config,
            found.arrays,
            found.words,
            folder,
            max_tokens=found.max_tokens,
            dtype=dtype,
        )
        lines = [f"    sentence_transformers.SentenceTransformer({str(target)!r})"]
    console.print(_table(found))
    size = sum(path.stat().st_size for path in folder.rglob("*")) / 1e6
    for line in (f"Wrote {target}: {size:.1f} MB, {dtype}. To use it:", *lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return found


def config_lines(found: TextModel, folder: str | os.PathLike[str]) -> list[str]:
    """Lines for a config file; as `--config.extract...=...` they work on the command line too."""
    shape = dataclasses.asdict(found.config)
    del shape["vocabulary"]  # the tokenizer's
    sections = {"text": shape, "text_weights": str(folder), "max_tokens": found.max_tokens}
    return settings.lines("config.extract", sections)


def _written(found: TextModel, folder: Path, dtype: str) -> list[str]:
    with files.new_folder(folder) as made:
        text_model.write(found, made, dtype=dtype)
    return [
        *config_lines(found, folder),
        "To train it further, or to measure it:",
        f"    python -m umair_jax.train --config=configs/text_pairs.py:{folder}",
        "    python -m umair_jax.evaluate --task=text --config=configs/text_pairs.py "
        f"--weights={folder}",
    ]


def _table(found: TextModel) -> Table:
    config = found.config
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    dense = f", dense layer to {config.output} with {config.activation}" if config.output else ""
    rows = {
        "family": found.origin,
        "transformer": f"{config.layers} layers of width {config.width}, {config.heads} heads",
        "vector": f"{config.pooling} over the tokens{dense}"
        + (", length 1" if config.normalise else ""),
        "tokenizer": f"{config.vocabulary:,} tokens; texts of up to {found.max_tokens}",
        "parameters": f"{sum(array.size for array in found.arrays.values()):,}",
        "dropped": "; ".join(f"{name}: {reason}" for name, reason in found.dropped.items()),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table
