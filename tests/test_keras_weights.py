"""DeepDanbooru's networks: layers by their order, Keras's padding, other networks refused."""

import json
import re

import numpy as np
import pytest

from tests.backbones import block_outputs, entries, golden, relative_error, without
from umair_jax import settings
from umair_jax.interop import files
from umair_jax.interop.resnet import read_resnet
from umair_jax.models.image_encoder import ImageEncoderConfig
from umair_jax.models.resnet import ResNetConfig

SMALL = ResNetConfig(
    base_width=4, blocks=(3, 2, 2), widths=(4, 6, 6), padding="same", epsilon=1e-3, momentum=0.99
)


@pytest.fixture
def read(monkeypatch):
    """Reads arrays as if they came out of an .h5 file."""

    def from_arrays(arrays, **attributes):
        contents = files.Contents(arrays, attributes)
        monkeypatch.setattr(files, "read", lambda path: contents)
        return read_resnet("model.h5")

    return from_arrays


def shifted(arrays, **offsets):
    """Layers numbered from another number on."""

    def rename(match):
        kind, number = match[1], int(match[2] or 0)
        return f"{kind}_{number + offsets[kind]}"

    return {
        re.sub(r"(conv2d|batch_normalization)(?:_(\d+))?(?=/)", rename, name): array
        for name, array in arrays.items()
    }


@pytest.mark.parity
def test_every_block_matches_same_padding_by_hand(read):
    reference = golden("interop_keras")
    found = read(entries("interop_keras"))
    assert (found.family, found.config) == ("deepdanbooru", SMALL)
    sums = [block for stage in block_outputs(found, reference["x"]) for block in stage]
    assert len(sums) == 7
    for number, block in enumerate(sums):
        assert relative_error(block, reference[f"y/{number}"]) < 1e-4, number
    assert list(found.dropped) == ["conv2d_25/conv2d_25/kernel:0"]
    assert found.settings["image_size"] == 512
    assert found.settings["mean"] == found.settings["std"] == ()


def test_layers_may_be_numbered_from_anywhere(read):
    plain = read(entries("interop_keras"))
    # Beyond a power of ten, where the order of texts is not that of numbers.
    other = read(shifted(entries("interop_keras"), conv2d=93, batch_normalization=8))
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(other.arrays[name], array)


def test_full_size_by_shape(monkeypatch, read):
    """The network of the paper's authors, its 178 convolutions, 4,096 channels and all."""
    arrays, count = {}, 0

    def layer(inputs, outputs, size, norm=True):
        nonlocal count
        number = f"_{count}" if count else ""
        arrays[f"conv2d{number}/conv2d{number}/kernel:0"] = (size, size, inputs, outputs)
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance") if norm else ():
            arrays[f"batch_normalization{number}/{leaf}:0"] = (outputs,)
        count += 1

    layer(3, 64, 7)
    inputs = 64
    for outputs, repeats in zip(
        (256, 512, 1024, 1024, 2048, 4096), (2, 7, 19, 19, 2, 2), strict=True
    ):
        for block in range(repeats + 1):
            layer(inputs, outputs // 4, 1)
            layer(outputs // 4, outputs // 4, 3)
            layer(outputs // 4, outputs, 1)
            if block == 0:
                layer(inputs, outputs, 1)
            inputs = outputs
    layer(4096, 8176, 1, norm=False)
    monkeypatch.setattr(np, "isfinite", lambda array: np.True_)  # would take memory
    found = read({k: np.broadcast_to(np.float32(0), shape) for k, shape in arrays.items()})
    assert found.config == ResNetConfig(
        base_width=64, blocks=(3, 8, 20, 20, 3, 3), widths=(64, 128, 256, 256, 512, 1024),
        padding="same", epsilon=1e-3, momentum=0.99,
    )  # fmt: skip
    assert len(found.arrays) == 178 * 5
    cfg = settings.build(ImageEncoderConfig, found.settings)
    assert (cfg.content_stage, cfg.content_block, cfg.image_size) == (4, 13, 512)
    # The vectors of the paper.
    assert (cfg.content_width, cfg.style_width) == (1024, 256)


def architecture(**changes):
    """What Keras writes beside the weights, as far as it is read."""
    layers = [("InputLayer", {"name": "input_1", "batch_input_shape": [None, 299, 299, 3]})]
    strided = {0, 12, 14, 19, 21}  # stem; then 3x3 and shortcut of two first blocks
    for number in range(26):
        name = f"conv2d_{number}" if number else "conv2d"
        stride = 2 if number in strided else 1
        layer = {"name": name, "padding": "same", "strides": [stride] * 2, "activation": "linear"}
        layers.append(("Conv2D", layer | changes.get(name, {})))
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        norm = {"name": name, "epsilon": 2e-3, "momentum": 0.9}
        layers.append(("BatchNormalization", norm | changes.get(name, {})))
    listed = [{"class_name": kind, "config": layer} for kind, layer in layers]
    return json.dumps({"class_name": "Functional", "config": {"layers": listed}})


def test_the_architecture_in_the_file_is_believed(read):
    found = read(entries("interop_keras"), model_config=architecture())
    assert (found.config.epsilon, found.config.momentum) == (2e-3, 0.9)
    assert found.settings["image_size"] == 299


@pytest.mark.parametrize(
    ("layer", "change", "words"),
    [
        (
            "conv2d_11",
            {"strides": [2, 2]},
            r"strides of conv2d_11: got \[2, 2\], expected \[1, 1\]",
        ),
        (
            "conv2d_12",
            {"strides": [1, 1]},
            r"strides of conv2d_12: got \[1, 1\], expected \[2, 2\]",
        ),
        ("conv2d_2", {"padding": "valid"}, "padding of conv2d_2: got 'valid', expected 'same'"),
        (
            "batch_normalization_3",
            {"epsilon": 1e-5},
            r"epsilon: got \[1e-05, 0\.002\], expected one",
        ),
    ],
)
def test_another_architecture_is_refused(read, layer, change, words):
    with pytest.raises(ValueError, match=words):
        read(entries("interop_keras"), model_config=architecture(**{layer: change}))
    with pytest.raises(ValueError, match="model_config cannot be read"):
        read(entries("interop_keras"), model_config="{}")


KERNEL = "conv2d_{0}/conv2d_{0}/kernel:0"
NORM = "batch_normalization_{0}/batch_normalization_{0}/{1}:0"
BROKEN = {
    "a missing statistic": (
        lambda a: without(a, NORM.format(4, "moving_variance")),
        r"missing: batch_normalization_4/batch_normalization_4/moving_variance \(for backbone/"
        r"layer1/block0/downsample_bn/var",
    ),
    "a missing layer": (
        lambda a: without(a, KERNEL.format(5), *(k for k in a if "normalization_5/" in k)),
        "missing: what comes between conv2d_4/conv2d_4 and conv2d_6/conv2d_6",
    ),
    "a convolution with a bias": (
        lambda a: a | {"conv2d_3/conv2d_3/bias:0": np.zeros(16, np.float32)},
        "1 problem\n  unknown: conv2d_3/conv2d_3/bias:0",
    ),
    "a layer of another kind": (
        lambda a: a | {"prelu/prelu/alpha:0": np.zeros(16, np.float32)},
        "1 problem\n  unknown: prelu/prelu/alpha:0",
    ),
    "a wrong shape": (
        lambda a: a | {KERNEL.format(6): np.zeros((3, 3, 4, 5), np.float32)},
        r"shape of conv2d_6/conv2d_6/kernel:0: got \(3, 3, 4, 5\), expected \(3, 3, 4, 4\)",
    ),
    "squeeze and excitation": (
        lambda a: a | {f"dense_{i}/dense_{i}/kernel:0": np.zeros((16, 1)) for i in range(4)},
        "26 convolutions, 25 BatchNorms and 4 dense layers, expected",
    ),
    "blocks of two": (
        lambda a: shifted({k: v for k, v in a.items() if re.search(r"[dn](_[12])?/", k)},
                          conv2d=0, batch_normalization=0),
        r"from conv2d_1/conv2d_1/kernel:0 on got kernels .*expected a block of 1x1, 3x3 and 1x1",
    ),
    "blocks without a shortcut": (
        lambda a: {k: v for k, v in a.items() if re.search(r"[dn](_[123])?/", k)},
        r"after conv2d_3/conv2d_3/kernel:0 got \[\], expected the shortcut of the first block, "
        r"\(1, 1, 4, 16\)",
    ),
    "another network": (
        lambda a: {"block1_conv1/block1_conv1/kernel:0": a["conv2d/conv2d/kernel:0"]},
        r"model\.h5: got 1 arrays \(block1_conv1/block1_conv1/kernel:0.*, expected a ResNet",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_weights_are_refused_by_name(read, case):
    change, words = BROKEN[case]
    with pytest.raises(ValueError, match=words):
        read(change(entries("interop_keras")))


@pytest.mark.parametrize("whole", [True, False])
def test_hdf5_files_are_read_with_and_without_architecture(tmp_path, whole):
    h5py = pytest.importorskip("h5py", reason="h5py (extra `keras`) is not installed")
    path = tmp_path / "model-resnet_custom_v3.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        group.attrs["layer_names"] = [b"conv2d", b"batch_normalization"]
        group.create_group("activation").attrs["weight_names"] = np.zeros(0)
        for name, array in entries("interop_keras").items():
            group[name] = array
        if whole:
            file.attrs["model_config"] = architecture().encode()
            file["optimizer_weights/iterations:0"] = np.int64(3)
    found = read_resnet(path)
    assert found.config.epsilon == (2e-3 if whole else 1e-3)
    for name, array in entries("interop_keras").items():
        if name.endswith("moving_mean:0"):
            assert any(np.array_equal(array, ours) for ours in found.arrays.values()), name
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"v3\.h5' cannot be read"):
        read_resnet(path)
