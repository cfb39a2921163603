"""Against the libraries themselves, where they are installed: full size, random weights."""

import os

import numpy as np
import pytest

from tests.backbones import block_outputs, entries, relative_error
from umair_jax.interop.resnet import read_resnet, write_timm
from umair_jax.models import weights
from umair_jax.models.resnet import ResNetConfig

torch = pytest.importorskip("torch", reason="torch (extra `parity`) is not installed")
save_file = pytest.importorskip("safetensors.torch").save_file
pytestmark = pytest.mark.parity
SIDE = 64


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def library(name):
    return pytest.importorskip(
        name, reason=f"{name} (extra `parity`) does not import", exc_type=ImportError
    )


def randomise(model):
    """Statistics of a trained network's order of magnitude, so that nothing explodes."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            last = name.endswith(("bn3", "layer.2.normalization"))
            torch.nn.init.uniform_(module.weight, *((0.1, 0.4) if last else (0.5, 1.5)))
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@torch.no_grad()
def stages_of(model, rooms, x):
    """What each stage gives for pictures [B, 3, H, W], channels last."""
    found = []
    hooks = [room.register_forward_hook(lambda m, i, y: found.append(y)) for room in rooms]
    model(x)
    for hook in hooks:
        hook.remove()
    return [y.permute(0, 2, 3, 1).numpy() for y in found]


def check(path, model, rooms):
    """Compares every stage of the model with ours, read from its file."""
    x = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = read_resnet(path)
    ours = block_outputs(found, x.permute(0, 2, 3, 1).numpy())
    theirs = stages_of(model, rooms, x)
    assert len(ours) == len(theirs) == 4
    for stage, (sums, y) in enumerate(zip(ours, theirs, strict=True), start=1):
        error = relative_error(np.maximum(sums[-1], 0), y)
        print(f"{os.path.basename(path)} stage {stage}: {error:.1e}")
        assert 0.01 < np.abs(y).max() < 1e3
        assert error < 1e-4, stage
    return found


def saved(model, path):
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_full_size_timm(tmp_path, depth):
    timm = library("timm")
    name = f"resnet{depth}"
    model = randomise(timm.create_model(name, pretrained=False))
    path = saved(model, tmp_path / f"{name}.safetensors")
    found = check(path, model, [getattr(model, f"layer{i}") for i in range(1, 5)])
    assert found.config == ResNetConfig(depth=depth)
    # And back: timm takes our file for its own.
    write_timm(found.arrays, found.config, path)
    again = timm.create_model(name, num_classes=0, checkpoint_path=str(path)).eval()
    x = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(
            again.forward_features(x), model.forward_features(x), rtol=0, atol=0
        )
    path.unlink()  # hundreds of megabytes


def test_small_timm_of_other_widths(tmp_path):
    module = pytest.importorskip(
        "timm.models.resnet", reason="timm (extra `parity`) does not import", exc_type=ImportError
    )
    # Stage 1 needs no projection: the stem has as many channels as its blocks give.
    model = module.ResNet(module.Bottleneck, (2, 1, 3, 1), channels=(16, 8, 24, 8))
    model = randomise(model)
    path = saved(model, tmp_path / "timm.safetensors")
    found = check(path, model, [getattr(model, f"layer{i}") for i in range(1, 5)])
    assert "backbone/layer1/block0/downsample_conv/kernel" not in found.arrays


def test_small_huggingface_of_other_widths(tmp_path):
    transformers = library("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 48, 48, 24], depths=[1, 2, 1, 2]
    )
    model = randomise(transformers.ResNetForImageClassification(config))
    found = check(saved(model, tmp_path / "hf.safetensors"), model, model.resnet.encoder.stages)
    assert found.config.widths == (4, 12, 12, 6)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_full_size_huggingface(tmp_path, depth):
    transformers = library("transformers")
    depths = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}[depth]
    model = transformers.ResNetModel(transformers.ResNetConfig(depths=depths))
    model = randomise(model)
    path = saved(model, tmp_path / "huggingface.safetensors")
    found = check(path, model, model.encoder.stages)
    assert (found.family, found.config) == ("huggingface", ResNetConfig(depth=depth))
    path.unlink()


def test_torchvision_and_timm_have_the_same_names():
    timm, torchvision = library("timm"), library("torchvision")
    theirs = timm.create_model("resnet50").state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {
        name: value.shape for name, value in torchvision.models.resnet50().state_dict().items()
    }


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_checkpoints_of_training_scripts_are_unpacked(tmp_path, suffix):
    state = {f"module.{name}": torch.tensor(a) for name, a in entries("interop_timm").items()}
    state["module.conv1.weight"] = state["module.conv1.weight"].bfloat16()
    path = tmp_path / f"checkpoint{suffix}"
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, path)
    found = read_resnet(path)
    assert found.family == "timm"
    assert found.dropped["epoch"] == found.dropped["optimizer"] == "beside state_dict"
    kernel = entries("interop_timm")["conv1.weight"].transpose(2, 3, 1, 0)
    got = found.arrays["backbone/conv1/kernel"]
    assert got.dtype == np.float32
    assert 0 < np.abs(got - kernel).max() <= 2**-8 * np.abs(kernel).max()
    torch.save(state, path)  # without anything around it
    assert read_resnet(path).arrays.keys() == found.arrays.keys()


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_code_in_a_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth' cannot be read"):
        read_resnet(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


def test_broken_checkpoints_are_named(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match=r"model\.pth: got a Tensor, expected a dict of tensors"):
        read_resnet(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"model\.pth' cannot be read"):
        read_resnet(path)


def test_half_precision_files_of_torch_are_read(tmp_path):
    state = {name: torch.tensor(array) for name, array in entries("interop_timm").items()}
    halves = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    save_file(halves, tmp_path / "half.safetensors")
    found = read_resnet(tmp_path / "half.safetensors")
    assert {array.dtype for array in found.arrays.values()} == {np.dtype(np.float32)}
    assert weights.read(tmp_path / "half.safetensors")["bn1.weight"].dtype.name == "bfloat16"
