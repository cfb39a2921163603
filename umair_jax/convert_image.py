"""Public ResNet weights for the image encoder, and its own for timm; see umair_jax/convert."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from umair_jax import settings
from umair_jax.interop.resnet import (
    TITLES,
    ResNetWeights,
    read_resnet,
    write_timm,
    write_umair,
)

TARGETS = ("umair", "timm")


def convert_image(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str = "umair",
    dtype: str = "float32",
    console: Console | None = None,
) -> ResNetWeights:
    """Reads weights of any known family and writes them as safetensors.

    Args:
        source: The file to read.
        target: The file to write, *.safetensors.
        to: "umair", for `config.extract.image_weights`; or "timm", whose names torchvision has too.
        dtype: "float32", "float16" or "bfloat16": how the weights are stored.
        console: Where the report goes.

    Returns:
        What was found.

    Raises:
        ValueError: A file or an option is not what it must be, see `read_resnet` and `write_timm`.
    """
    console = console or Console()
    target = Path(target)
    if to not in TARGETS:
        raise ValueError(f"--to: got {to!r}, expected one of {TARGETS}.")
    if target.suffix != ".safetensors":
        raise ValueError(f"--output: got {str(target)!r}, expected a name like new.safetensors.")
    if not target.parent.is_dir():
        raise ValueError(
            f"--output: got no folder {str(target.parent)!r}, expected one to write to."
        )
    if target.exists() and target.samefile(source):
        raise ValueError(f"--output: got the input {str(target)!r} again, expected another file.")
    found = read_resnet(source)
    if to == "umair" and found.family == "umair_jax" and found.dropped:
        more = ", ".join(list(found.dropped)[:3])
        raise ValueError(
            f"{source}: got more than a backbone ({more}), which would be lost; expected "
            "--to=timm, or weights of a backbone alone."
        )
    if to == "timm":
        write_timm(found.arrays, found.config, target, dtype=dtype)
    else:
        write_umair(found, target, dtype=dtype)
    size = target.stat().st_size / 1e6
    lines = config_lines(found, target) if to == "umair" else timm_lines(found, target)
    console.print(_table(found))
    for line in (f"Wrote {target}: {size:.1f} MB, {dtype}. To use it:", *lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if to == "umair" and found.preset.get("mean"):
        console.print(
            "mean, std: ImageNet's, as nearly all such weights want; see their model card."
        )
    return found


def config_lines(found: ResNetWeights, path: str | os.PathLike[str]) -> list[str]:
    """Lines for a config file; as `--config.extract...=...` they work on the command line too."""
    sections: dict[str, Any] = {"image": found.settings, "image_weights": str(path)}
    return settings.lines("config.extract", sections)


def timm_lines(found: ResNetWeights, path: str | os.PathLike[str]) -> list[str]:
    """Code that loads the file into timm, as far as timm has such a network under a name."""
    config = found.config
    if config.base_width != 64 or config.blocks or config.widths:
        return ["    load_state_dict of a network of the same widths (timm has none by a name)"]
    norm = ""
    if config.epsilon != 1e-5:
        norm = f", norm_layer=functools.partial(torch.nn.BatchNorm2d, eps={config.epsilon!r})"
    name = f'"resnet{config.depth}", num_classes=0'
    return [f'    timm.create_model({name}, checkpoint_path="{path}"{norm})']


def _table(found: ResNetWeights) -> Table:
    config = found.config
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    depth = "" if config.blocks else f"ResNet-{config.depth}: "
    channels = ", ".join(str(config.channels(s + 1)) for s in range(len(config.blocks_per_stage)))
    rows = {
        "family": TITLES[found.family],
        "blocks per stage": depth + ", ".join(map(str, config.blocks_per_stage)),
        "stem": f"{config.base_width} channels",
        "stages": f"{channels} channels",
        "padding, epsilon": f"{config.padding}, {config.epsilon:g}",
        "parameters": f"{found.parameters:,}",
        "arrays": f"{len(found.arrays):,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    reasons: dict[str, list[str]] = {}
    for name, reason in found.dropped.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        some = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
        table.add_row("dropped", f"{len(names)}, {reason}: {some}")
    return table
