"""ResNets of other libraries: names, shapes, every stage's output; round trips; broken files."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.backbones import block_outputs, entries, golden, relative_error, without
from umair_jax import settings
from umair_jax.interop import files, resnet, torch_names
from umair_jax.interop.resnet import leaf_shapes, read_resnet, write_timm, write_umair
from umair_jax.models import weights
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws
from umair_jax.models.resnet import ResNetConfig


def stored(tmp_path, arrays, metadata=None):
    path = tmp_path / "model.safetensors"
    save_file(arrays, path, metadata)
    return path


def check_stages(found, reference):
    stages = block_outputs(found, reference["x"].transpose(0, 2, 3, 1))
    for stage, sums in enumerate(stages, start=1):
        expected = reference[f"y/{stage}"].transpose(0, 2, 3, 1)
        assert relative_error(jax.nn.relu(sums[-1]), expected) < 1e-4, stage


@pytest.mark.parity
@pytest.mark.parametrize(
    ("family", "config", "dropped"),
    [
        ("timm", {"blocks": (1, 2, 1, 1), "widths": (4, 8, 8, 12)}, "fc.weight"),
        ("huggingface", {"base_width": 6, "blocks": (2, 1, 2), "widths": (4, 8, 16)}, "classifier"),
    ],
)
def test_every_stage_matches_torch(tmp_path, family, config, dropped):
    reference = golden(f"interop_{family}")
    found = read_resnet(stored(tmp_path, entries(f"interop_{family}")))
    assert found.family == family
    assert found.config == ResNetConfig(**config)
    assert set(found.dropped.values()) == {torch_names.HEAD, torch_names.COUNTER}
    assert any(name.startswith(dropped) for name in found.dropped)
    assert found.settings["mean"] == (0.485, 0.456, 0.406)
    check_stages(found, reference)


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_full_size_timm_names_are_all_known(tmp_path, depth, monkeypatch):
    check_names(monkeypatch, f"timm/resnet{depth}", depth)


def test_full_size_huggingface_names_are_all_known(monkeypatch):
    check_names(monkeypatch, "huggingface/resnet101", 101)


def check_names(monkeypatch, name, depth):
    arrays = {}
    for line in golden("interop_names")[name]:
        key, _, shape = str(line).partition(" ")
        shape = tuple(map(int, shape.split("x"))) if shape else ()
        arrays[key] = np.broadcast_to(np.float32(0), shape)  # takes no memory
    # Comparing values would.
    monkeypatch.setattr(np, "isfinite", lambda array: np.True_)
    monkeypatch.setattr(files, "read", lambda path: files.Contents(arrays))
    found = read_resnet("model.safetensors")
    assert found.config == ResNetConfig(depth=depth)
    assert len(found.arrays) + len(found.dropped) == len(arrays)
    totals = {50: 25_557_032, 101: 44_549_160, 152: 60_192_808}  # torchvision's, with classifier
    assert found.parameters == totals[depth] - (2048 * 1000 + 1000)


def test_ours_to_timm_to_ours_is_exact(tmp_path):
    cfg = ImageEncoderConfig(base_width=4, blocks=(2, 1, 2, 1), image_size=32)
    encoder = ImageEncoder(cfg, rngs=HostDraws(3))
    flat = weights.flatten(encoder)
    assert leaf_shapes(cfg.resnet) == {name: array.shape for name, array in flat.items()}
    path = tmp_path / "timm.safetensors"
    write_timm(flat, cfg.resnet, path)
    assert weights.read(path)["layer2.0.downsample.0.weight"].shape == (32, 16, 1, 1)
    found = read_resnet(path)
    assert (found.family, found.config, found.dropped) == ("timm", ResNetConfig(
        base_width=4, blocks=(2, 1, 2, 1)), {})  # fmt: skip
    again = tmp_path / "ours.safetensors"
    write_umair(found, again)
    other = ImageEncoder(cfg, rngs=HostDraws(4))
    weights.load(other, again)
    for name, array in weights.flatten(other).items():
        np.testing.assert_array_equal(array, flat[name])


def test_our_files_keep_what_shapes_do_not_show(tmp_path):
    cfg = ResNetConfig(base_width=4, blocks=(1, 1), widths=(3, 3), padding="same", epsilon=1e-3)
    arrays = {name: np.ones(shape, np.float32) for name, shape in leaf_shapes(cfg).items()}
    preset = {"image_size": 512, "mean": (0.5, 0.5, 0.5), "std": (), "content_stage": 2}
    path = tmp_path / "ours.safetensors"
    written = resnet.ResNetWeights("timm", cfg, arrays, {}, preset)
    write_umair(written, path, dtype="float16")
    found = read_resnet(path)
    assert (found.family, found.config, found.settings) == ("umair_jax", cfg, written.settings)
    assert preset.items() <= found.preset.items()
    # What else an encoder has is not of the backbone.
    save_file(arrays | {"head/bias": np.ones(3, np.float32)}, path)
    found = read_resnet(path)
    assert found.dropped == {"head/bias": "not of the backbone"}
    assert found.config.padding == "symmetric"
    with pytest.raises(ValueError, match="not settings as JSON"):
        read_resnet(stored(tmp_path, arrays, {weights.SETTINGS: "[1]"}))
    with pytest.raises(ValueError, match="padding: got 'none'"):
        read_resnet(stored(tmp_path, arrays, {weights.SETTINGS: '{"padding": "none"}'}))


def test_a_network_that_pads_otherwise_cannot_leave(tmp_path):
    cfg = ResNetConfig(base_width=4, blocks=(1,), padding="same")
    with pytest.raises(ValueError, match="padding: got 'same', expected 'symmetric'"):
        write_timm({}, cfg, tmp_path / "timm.safetensors")
    flat = {name: np.ones(shape, np.float32) for name, shape in leaf_shapes(cfg).items()}
    del flat["backbone/bn1/mean"]
    with pytest.raises(ValueError, match="missing: backbone/bn1/mean"):
        write_timm(flat, ResNetConfig(base_width=4, blocks=(1,)), tmp_path / "timm.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_trained_encoder_tells_its_whole_configuration(tmp_path):
    cfg = ImageEncoderConfig(
        base_width=4, blocks=(2, 1), widths=(5, 6), padding="same", epsilon=1e-3, image_size=32,
        content_stage=2, mean=(0.5, 0.4, 0.3), dtype="bfloat16", remat="block",
    )  # fmt: skip
    config = json.dumps(dataclasses.asdict(cfg))
    path = tmp_path / "encoder.safetensors"
    weights.save(ImageEncoder(cfg, rngs=HostDraws(0)), path, metadata={"config": config})
    assert settings.build(ImageEncoderConfig, read_resnet(path).settings) == cfg
    again = tmp_path / "again.safetensors"
    write_umair(read_resnet(path), again)
    assert json.loads(weights.read_metadata(again)["config"]) == json.loads(config)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone."])
def test_prefixes_of_training_scripts_are_known(tmp_path, prefix):
    given = entries("interop_timm")
    found = read_resnet(stored(tmp_path, {prefix + k: v for k, v in given.items()}))
    assert len(found.arrays) + len(found.dropped) == len(given)


TIMM = {
    "a missing array": (
        lambda a: without(a, "layer2.1.bn2.running_var"),
        [r"1 problem\b", r"missing: layer2\.1\.bn2\.running_var \(for backbone/layer2/block1/bn2/"],
    ),
    "a missing first kernel": (
        lambda a: without(a, "layer1.0.conv1.weight", "conv1.weight"),
        ["2 problems", r"missing: layer1\.0\.conv1\.weight", r"missing: conv1\.weight"],
    ),
    "an unknown array": (
        lambda a: a | {"layer1.0.se.fc1.weight": np.zeros(3, np.float32)},
        [r"1 problem\b", r"unknown: layer1\.0\.se\.fc1\.weight"],
    ),
    "an array of a block that has none": (
        lambda a: a | {"layer2.1.downsample.0.weight": a["layer2.0.downsample.0.weight"]},
        [r"1 problem\b", r"unknown: layer2\.1\.downsample\.0\.weight"],
    ),
    "a wrong shape": (
        lambda a: a | {"layer3.0.conv2.weight": np.zeros((8, 1, 3, 3), np.float32)},
        [r"1 problem\b", r"layer3\.0\.conv2\.weight: got \(8, 1, 3, 3\), expected \(8, 8, 3, 3\)"],
    ),
    "a missing block": (
        lambda a: {k: v for k, v in a.items() if not k.startswith("layer2.0.")},
        [r"missing: whole blocks; got .*'layer2': \[1\]"],
    ),
    "a missing stage": (
        lambda a: {k: v for k, v in a.items() if not k.startswith("layer3.")},
        ["missing: whole blocks"],
    ),
    "no bottlenecks": (
        lambda a: {k: v for k, v in a.items() if "conv3" not in k and "bn3" not in k},
        ["25 problems", r"missing: layer1\.0\.conv3\.weight"],
    ),
    "another network": (
        lambda a: {"features.0.weight": a["conv1.weight"], "features.0.bias": a["bn1.bias"]},
        [r"got 2 arrays \(features\.0\.\w+, .*, expected a ResNet by the names of one of: .*timm"],
    ),
    "nothing": (lambda a: {}, [r"got 0 arrays \(nothing"]),
}


@pytest.mark.parametrize("case", TIMM)
def test_broken_weights_are_refused_by_name(tmp_path, case):
    change, expected = TIMM[case]
    with pytest.raises(ValueError, match=r"model\.safetensors") as told:
        read_resnet(stored(tmp_path, change(entries("interop_timm"))))
    for words in expected:
        assert re.search(words, str(told.value)), str(told.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = stored(tmp_path, entries("interop_timm"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors' cannot be read"):
        read_resnet(path)
    with pytest.raises(ValueError, match=r"other\.safetensors: got no such file"):
        read_resnet(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"named \*\.onnx, expected one of \.safetensors, \.pth"):
        read_resnet(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("suffix", "module", "extra"), [(".pth", "torch", "parity"), (".h5", "h5py", "keras")]
)
def test_a_library_that_is_not_installed_is_named(tmp_path, monkeypatch, suffix, module, extra):
    (tmp_path / f"model{suffix}").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ValueError, match=rf"{module} is not installed: pip.*\.\[{extra}\]"):
        read_resnet(tmp_path / f"model{suffix}")
