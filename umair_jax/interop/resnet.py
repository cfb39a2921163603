"""Public ResNet weights as a backbone of the image encoder, and the encoder's as timm names.

    found = read_resnet("resnet101.safetensors")
    found.config          # ResNetConfig(depth=101, ...)
    found.arrays          # {"backbone/conv1/kernel": ..., ...}, as in ImageEncoder
    found.settings        # what belongs into config.extract.image

The family is told by the names, and depth, number of stages and widths by the shapes:

| family      | files                         | pictures in [0, 1]           |
|-------------|-------------------------------|------------------------------|
| timm        | timm, torchvision: ResNet-50, | less the mean of ImageNet,   |
|             | -101, -152 and of any width   | (0.485, 0.456, 0.406), by    |
| huggingface | transformers' ResNetModel     | its standard deviation,      |
|             |                               | (0.229, 0.224, 0.225)        |
| deepdanbooru| Keras .h5 of KichangKim's     | as they are                  |
|             | resnet_custom_v1 to _v4, _152 |                              |
| umair_jax   | what this package wrote       | as their metadata say        |

Mean and standard deviation are the habit of nearly all weights of the first two families; look at
the model's card. Bottlenecks must be plain and have the stride in the 3x3 convolution, as in all of
these but ResNet-18 and -34 (no bottlenecks) and the variants with deep stems (-D, -T), groups
(ResNeXt), wide bottlenecks or squeeze-excitation, whose arrays are refused by name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from umair_jax.interop import files, keras, key_map, torch_names
from umair_jax.interop.key_map import Translation
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoderConfig
from umair_jax.models.resnet import BLOCKS_OF_DEPTH, ResNet, ResNetConfig

IMAGENET = {"image_size": 224, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
TITLES = {
    "umair_jax": "umair_jax",
    "timm": "timm or torchvision",
    "huggingface": "Hugging Face",
    "deepdanbooru": "DeepDanbooru (Keras)",
}
PREFIX = "backbone/"


@dataclasses.dataclass(frozen=True)
class ResNetWeights:
    """Weights of a ResNet under our names.

    Attributes:
        family: "timm", "huggingface", "deepdanbooru" or "umair_jax".
        config: The network that they fit.
        arrays: float32, by the paths of an `ImageEncoder`: "backbone/conv1/kernel" and so on.
        dropped: Entries of the file that were left out, and why.
        preset: Further settings that belong to these weights: `image_size`, `mean`, `std`, and what
            else the metadata of our own files hold.
    """

    family: str
    config: ResNetConfig
    arrays: dict[str, np.ndarray]
    dropped: dict[str, str]
    preset: dict[str, Any]

    @property
    def parameters(self) -> int:
        """Numbers that training changes."""
        statistics = ("/mean", "/var")
        return sum(a.size for name, a in self.arrays.items() if not name.endswith(statistics))

    @property
    def settings(self) -> dict[str, Any]:
        """What `config.extract.image` must say to use them; the rest can stay as it is."""
        shape = ("depth", "base_width", "blocks", "widths", "padding", "epsilon")
        network = {name: getattr(self.config, name) for name in shape}
        content = {"content_stage": len(self.config.blocks_per_stage)}
        if self.family == "deepdanbooru" and self.config.blocks == keras.PAPER_BLOCKS:
            content = keras.PAPER_CONTENT
        return _without_arrays({**network, **content, **self.preset})


def _without_arrays(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with heads that need no arrays, since only those of a backbone are kept."""
    plain = ImageEncoderConfig()
    style = {**dataclasses.asdict(plain.style), **settings.get("style", {})}
    if style["kernel"] != "gram":
        style = dataclasses.asdict(plain.style)
    return {
        "pre_activation": plain.pre_activation,
        **settings,
        "style": style | {"standardise": False, "projection": 0},
        "whiten_content": 0,
        "whiten_style": 0,
    }


def read_resnet(path: str | os.PathLike[str]) -> ResNetWeights:
    """Reads weights of a bottleneck ResNet, whichever library wrote them.

    Args:
        path: A .safetensors file; a .pth, .pt, .bin or .ckpt file of torch (extra `parity`); or a
            Keras .h5 file (extra `keras`).

    Raises:
        ValueError: The file cannot be read, is of no known family, or does not hold exactly the
            arrays of such a network; lists all names that are missing, unknown or misshapen.
    """
    contents = files.read(path)
    family = _family(contents.arrays, path)
    options: dict[str, Any] = {}
    preset: dict[str, Any] = {}
    if family == "deepdanbooru":
        rules = keras.rules(contents)
        options = keras.settings(contents, rules)
        preset = {"image_size": options.pop("image_size"), "mean": (), "std": ()}
        found = key_map.to_ours(contents.arrays, rules)
    elif family == "umair_jax":
        options, preset = _own_settings(path)
        found = _as_they_are(contents.arrays)
    else:
        rules = torch_names.TIMM if family == "timm" else torch_names.HUGGINGFACE
        preset = dict(IMAGENET)
        found = key_map.to_ours(contents.arrays, rules, torch_names.PREFIXES)
    what = f"{path}: taken for a ResNet of {TITLES[family]}"
    config = _config(found, what, options)
    found.complete(leaf_shapes(config), f"{what} with {config.blocks_per_stage} blocks")
    return ResNetWeights(
        family=family,
        config=config,
        arrays=dict(sorted(found.arrays.items())),
        dropped=contents.dropped | found.dropped,
        preset=preset,
    )


def write_umair(
    found: ResNetWeights, path: str | os.PathLike[str], *, dtype: str = "float32"
) -> None:
    """Writes weights for `config.extract.image_weights`, with their settings as metadata.

    Raises:
        ValueError: A value is too large for the dtype.
    """
    metadata = {"source": TITLES[found.family], weights.SETTINGS: json.dumps(found.settings)}
    weights.write(found.arrays, path, dtype=dtype, metadata=metadata)


def write_timm(
    arrays: Mapping[str, np.ndarray],
    config: ResNetConfig,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
) -> None:
    """Writes an encoder's backbone by timm's (and torchvision's) names, in torch's layout.

    Args:
        arrays: `weights.flatten` of an encoder, or `ResNetWeights.arrays`; what is not of the
            backbone is left out.
        config: Of the backbone.
        path: A safetensors file; without classifier, as for timm's `num_classes=0`.
        dtype: How the weights are stored.

    Raises:
        ValueError: torch's networks cannot compute what this one does, the arrays do not fit it, or
            a value is too large for the dtype.
    """
    if config.padding != "symmetric":
        raise ValueError(
            f"padding: got {config.padding!r}, expected 'symmetric': timm's ResNets pad "
            "otherwise, so that their outputs would be wrong without notice."
        )
    backbone = _as_they_are(arrays)
    backbone.complete(leaf_shapes(config), f"weights for {config}")
    metadata = {"format": "pt", "batch_norm_epsilon": repr(config.epsilon)}
    renamed = key_map.to_theirs(backbone.arrays, torch_names.TIMM)
    weights.write(renamed, path, dtype=dtype, metadata=metadata)


def leaf_shapes(config: ResNetConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every array of an `ImageEncoder` with this backbone, by path."""
    abstract = nnx.eval_shape(lambda: ResNet(config, rngs=nnx.Rngs(0)))
    return {PREFIX + name: shape for name, shape in weights.shapes(abstract).items()}


def _family(names: Mapping[str, Any], path: str | os.PathLike[str]) -> str:
    bare = [key_map.bare(name, torch_names.PREFIXES) for name in names]
    if any(name.startswith(PREFIX) for name in names):
        return "umair_jax"
    if any(name.startswith(("embedder.embedder.", "encoder.stages.")) for name in bare):
        return "huggingface"
    if any(re.match(r"layer\d+\.\d+\.", name) for name in bare):
        return "timm"
    if keras.recognised(names):
        return "deepdanbooru"
    some = ", ".join(list(names)[:5]) or "nothing"
    raise ValueError(
        f"{path}: got {len(names)} arrays ({some}, ...), expected a ResNet by the names of one of: "
        f"{', '.join(TITLES.values())}."
    )


def _as_they_are(arrays: Mapping[str, np.ndarray]) -> Translation:
    """The backbone of arrays that have our names already."""
    kept = (name if name.startswith(PREFIX) else "" for name in arrays)
    rules = [
        key_map.Rule(name, ours, reason="not of the backbone")
        for name, ours in zip(arrays, kept, strict=True)
    ]
    return key_map.to_ours(arrays, rules)


def _own_settings(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `ResNetConfig` that shapes do not show, and the other settings of a file."""
    settings = _tuples(weights.read_settings(path))
    try:
        if "epsilon" in settings:
            settings["epsilon"] = float(settings["epsilon"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: epsilon {settings['epsilon']!r} is no number") from error
    options = {name: settings[name] for name in ("padding", "epsilon") if name in settings}
    shown = {"depth", "base_width", "blocks", "widths", *options}
    return options, {name: value for name, value in settings.items() if name not in shown}


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples of a config."""
    if isinstance(value, dict):
        return {name: _tuples(inner) for name, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_BLOCK = re.compile(rf"{PREFIX}layer(\d+)/block(\d+)/")


def _config(found: Translation, what: str, options: Mapping[str, Any]) -> ResNetConfig:
    """Number of stages and blocks from the names, widths from the shapes."""
    shapes = {name: array.shape for name, array in found.arrays.items()}
    stages: dict[int, set[int]] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    numbers = [sorted(stages[stage]) for stage in sorted(stages)]
    blocks = tuple(map(len, numbers))
    if sorted(stages) != [*range(1, len(stages) + 1)] or numbers != [[*range(n)] for n in blocks]:
        told = {f"layer{stage}": sorted(stages[stage]) for stage in sorted(stages)}
        problem = f"missing: whole blocks; got {told}, expected blocks from 0 without gaps"
        raise ValueError(f"{what}: {key_map.listed([*found.problems, problem])}")
    if not stages:
        raise ValueError(f"{what}: {key_map.listed([*found.problems, 'missing: every block'])}")
    base, *widths = (
        _width(found, shapes, room, what)
        for room in (PREFIX, *(f"{PREFIX}layer{stage}/block0/" for stage in sorted(stages)))
    )
    doubled = [base * 2**i for i in range(len(widths))]
    depth = next((depth for depth, row in BLOCKS_OF_DEPTH.items() if row == blocks), None)
    try:
        return ResNetConfig(
            depth=depth or ResNetConfig.depth,
            base_width=base,
            blocks=() if depth else blocks,
            widths=() if widths == doubled else tuple(widths),
            **options,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: {error}") from error


def _width(found: Translation, shapes: Mapping[str, tuple[int, ...]], room: str, what: str) -> int:
    """Output channels of a first convolution, from its kernel or its BatchNorm."""
    for leaf in ("conv1/kernel", "bn1/scale", "bn1/bias", "bn1/mean", "bn1/var"):
        if shapes.get(room + leaf):
            return shapes[room + leaf][-1]
    named = key_map.their_name(f"{room}conv1/kernel", found.rules)
    problem = f"missing: {named[0] if named else room + 'conv1/kernel'}"
    raise ValueError(f"{what}: {key_map.listed([*found.problems, problem])}")
