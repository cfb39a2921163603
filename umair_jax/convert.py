"""Weights from elsewhere for the encoders, and theirs for elsewhere.

    python -m umair_jax.convert --input=resnet101.safetensors --output=encoder.safetensors
    python -m umair_jax.convert --input=encoder.safetensors --output=timm.safetensors --to=timm

Reads a file of weights of timm, torchvision, Hugging Face (.safetensors; .pth and the like with the
extra `parity`), of DeepDanbooru (.h5, with the extra `keras`) and of this package. Depth, stages
and widths are found in the file.

    python -m umair_jax.convert --input=all-MiniLM-L6-v2 --output=minilm
    python -m umair_jax.convert --input=runs/text_pairs --output=tuned --to=sentence-transformers

Reads a folder of sentence-transformers, one that a training of the text encoder left, or "builtin",
the one of the package. Prints what it found, and the lines of config that use it.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from umair_jax import pretrained, settings
from umair_jax.convert_image import convert_image
from umair_jax.convert_text import convert_text


def main(argv: list[str]) -> None:
    """Parses the flags and converts."""
    if len(argv) > 1:
        raise ValueError(f"arguments: got {argv[1:]}, expected flags only.")
    values = flags.FLAGS
    for name in ("input", "output"):
        if not values[name].value:
            raise ValueError(f"--{name}: got nothing, expected a file or folder.")
    text = values.input == pretrained.BUILTIN or Path(values.input).is_dir()
    one = convert_text if text else convert_image
    one(values.input, values.output, to=values.to, dtype=values.dtype)


def define_flags() -> None:
    """The command's flags."""
    flags.DEFINE_string("input", None, "Weights to read: .safetensors, .pth, .h5, ..., folder.")
    flags.DEFINE_string("output", None, "What to write: a .safetensors file, or a new folder.")
    flags.DEFINE_string("to", "umair", "umair, timm (a file) or sentence-transformers (a folder).")
    flags.DEFINE_string("dtype", "float32", "float32, float16 or bfloat16.")


if __name__ == "__main__":
    settings.run_front_door(main, define_flags)
