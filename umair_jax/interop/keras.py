"""Weights of DeepDanbooru's ResNets in Keras files, whose layers are told apart by order alone.

Keras numbers its layers as a program makes them: conv2d, conv2d_1, ... and batch_normalization,
batch_normalization_1, ... (from another number on, where the program made other networks before).
DeepDanbooru makes a 7x7 stem, then blocks of 1x1, 3x3 and 1x1 convolutions, each with its
BatchNorm; the first block of every stage is followed by the convolution of its shortcut. The head
comes last: a convolution without BatchNorm, or a dense layer. Convolutions have no bias; the stride
sits in the 3x3 one; padding is SAME; BatchNorm has Keras's epsilon, 1e-3. Pictures are 512 x 512,
RGB in [0, 1], without mean and standard deviation.

Source: the published code of KichangKim/DeepDanbooru.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from umair_jax.interop.files import Contents
from umair_jax.interop.key_map import Rule, listed

EPSILON, MOMENTUM = 1e-3, 0.99
IMAGE_SIZE = 512
# What the paper's authors use, and where they read the content vector.
PAPER_BLOCKS = (3, 8, 20, 20, 3, 3)
PAPER_CONTENT = {"content_stage": 4, "content_block": 13}

_LAYER = re.compile(r"(?:.*/)?((conv2d|batch_normalization|dense)(?:_(\d+))?)/(\w+)(?::0)?")
_NORM = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
_STRIDED = re.compile(
    r"backbone/conv1/kernel|backbone/layer(?!1/).*/block0/(conv2|downsample_conv)/kernel"
)
_WHAT = "weights do not fit a ResNet of DeepDanbooru"


def recognised(names: Mapping[str, Any]) -> bool:
    """Whether there are layers with Keras's automatic names for convolution and BatchNorm."""
    kinds = {match[2] for name in names if (match := _LAYER.fullmatch(name))}
    return {"conv2d", "batch_normalization"} <= kinds


def rules(contents: Contents) -> tuple[Rule, ...]:
    """One rule for every array, from the order and the shapes of the layers.

    Args:
        contents: An HDF5 file's datasets by path.

    Returns:
        Rules with literal names. Arrays that belong to no layer of the network have none.

    Raises:
        ValueError: The layers do not follow each other as in DeepDanbooru's networks.
    """
    layers = _layers(contents.arrays)
    convs, norms, dense = (
        _in_order(layers[kind]) for kind in ("conv2d", "batch_normalization", "dense")
    )
    heads = len(convs) - len(norms) + len(dense)
    if len(convs) - len(norms) not in (0, 1) or heads > 1:
        raise ValueError(
            f"{_WHAT}: got {len(convs)} convolutions, {len(norms)} BatchNorms and {len(dense)} "
            "dense layers, expected a BatchNorm for every convolution but the head's, and one head."
        )
    kernels = [layer["kernel"] for layer in convs if "kernel" in layer]
    shapes = [contents.arrays[name].shape for name in kernels]
    if len(shapes) < len(convs):
        raise ValueError(f"{_WHAT}: {len(convs) - len(shapes)} of its convolutions have no kernel.")
    found: list[Rule] = []
    places = _places(shapes[: len(norms)], kernels)
    for (conv, norm), kernel, layer in zip(places, kernels, norms, strict=False):
        found.append(Rule(kernel, f"{conv}/kernel"))
        found += [Rule(layer[k], f"{norm}/{v}") for k, v in _NORM.items() if k in layer]
        # A leaf that is not there keeps its rule, so that it is missed by a name one can look for.
        root = _name(layer)
        found += [Rule(f"{root}/{k}", f"{norm}/{v}") for k, v in _NORM.items() if k not in layer]
    for layer in (*convs[len(norms) :], *dense):
        found += [Rule(name, "", reason="classifier") for name in layer.values()]
    return tuple(found)


def settings(contents: Contents, rules: Sequence[Rule]) -> dict[str, Any]:
    """What the weights do not show: padding, epsilon, momentum and the size of the pictures.

    Args:
        contents: The file; its architecture is looked at where it has one.
        rules: What `rules` found in it.

    Returns:
        `padding`, `epsilon`, `momentum` and `image_size`.

    Raises:
        ValueError: The file describes another architecture than DeepDanbooru's; lists all
            differences.
    """
    found = {
        "padding": "same",
        "epsilon": EPSILON,
        "momentum": MOMENTUM,
        "image_size": IMAGE_SIZE,
    }
    if "model_config" not in contents.metadata:
        return found
    places = {_name({"": rule.theirs}).rpartition("/")[2]: rule.ours for rule in rules}
    problems, epsilons = [], set()
    try:
        layers = json.loads(contents.metadata["model_config"])["config"]["layers"]
        for kind, layer in ((entry["class_name"], entry["config"]) for entry in layers):
            if kind == "InputLayer":
                shape = layer.get("batch_input_shape") or layer.get("batch_shape") or ()
                sizes = [size for size in shape[1:3] if isinstance(size, int)]
                found["image_size"] = sizes[0] if sizes else IMAGE_SIZE
            elif kind == "BatchNormalization":
                epsilons.add(float(layer.get("epsilon", EPSILON)))
                found["momentum"] = float(layer.get("momentum", MOMENTUM))
            elif kind == "Conv2D" and places.get(layer["name"]):
                stride = 2 if _STRIDED.fullmatch(places[layer["name"]]) else 1
                expected = {"padding": "same", "activation": "linear", "strides": [stride] * 2}
                problems += [
                    f"{key} of {layer['name']}: got {layer[key]!r}, expected {value!r}"
                    for key, value in expected.items()
                    if layer.get(key, value) != value
                ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{_WHAT}: its model_config cannot be read: {error!r}") from error
    if len(epsilons) > 1:
        problems.append(f"epsilon: got {sorted(epsilons)}, expected one for all BatchNorms")
    if problems:
        raise ValueError(f"{_WHAT}: {listed(problems)}")
    return found | {"epsilon": min(epsilons, default=EPSILON)}


def _layers(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[int, dict[str, str]]]:
    """Names in the file by kind of layer, number and leaf."""
    found: dict[str, dict[int, dict[str, str]]] = {
        kind: {} for kind in ("conv2d", "batch_normalization", "dense")
    }
    for name in arrays:
        if match := _LAYER.fullmatch(name):
            number = int(match[3] or 0)
            found[match[2]].setdefault(number, {})[match[4]] = name
    return found


def _in_order(layers: Mapping[int, dict[str, str]]) -> list[dict[str, str]]:
    numbers = sorted(layers)
    gaps = [
        f"missing: what comes between {_name(layers[one])} and {_name(layers[other])}"
        for one, other in itertools.pairwise(numbers)
        if other > one + 1
    ]
    if gaps:
        raise ValueError(f"{_WHAT}: {listed(gaps)}")
    return [layers[number] for number in numbers]


def _name(layer: Mapping[str, str]) -> str:
    return next(iter(layer.values())).rpartition("/")[0]


def _places(shapes: list[tuple[int, ...]], names: list[str]) -> list[tuple[str, str]]:
    """Our paths of each convolution and its BatchNorm, in the order of their making."""
    places = [("backbone/conv1", "backbone/bn1")]
    stage = block = 0
    inputs = shapes[0][-1] if shapes else 0
    at = 1
    while at < len(shapes):
        sizes = [shape[:2] for shape in shapes[at : at + 3]]
        if sizes != [(1, 1), (3, 3), (1, 1)]:
            raise ValueError(
                f"{_WHAT}: from {names[at]} on got kernels {shapes[at : at + 3]}, expected a block "
                "of 1x1, 3x3 and 1x1 convolutions."
            )
        outputs = shapes[at + 2][-1]
        shortcut = shapes[at + 3 : at + 4] == [(1, 1, inputs, outputs)]
        stage, block = (stage + 1, 0) if shortcut else (stage, block + 1)
        if stage == 0:
            raise ValueError(
                f"{_WHAT}: after {names[at + 2]} got {shapes[at + 3 : at + 4]}, expected the "
                f"shortcut of the first block, {(1, 1, inputs, outputs)}."
            )
        room = f"backbone/layer{stage}/block{block}"
        places += [(f"{room}/conv{n}", f"{room}/bn{n}") for n in (1, 2, 3)]
        if shortcut:
            places.append((f"{room}/downsample_conv", f"{room}/downsample_bn"))
        at += 4 if shortcut else 3
        inputs = outputs
    return places
