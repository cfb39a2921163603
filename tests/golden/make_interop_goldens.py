"""Writes the goldens of weights in and out: networks of other libraries under their own names.

Needs torch, timm (with torchvision) and transformers 5 (nothing is downloaded); the tests that read
the files need none of them:

    python tests/golden/make_interop_goldens.py tests/golden

- `interop_timm.npz`, `interop_huggingface.npz`: `w/NAME` all entries of a small random model's
  state_dict, `x` pictures [B, 3, H, W], `y/STAGE` what each stage gives, after its ReLU.
- `interop_keras.npz`: as a small DeepDanbooru network would be in a Keras file (`w/LAYER/LEAF:0`),
  computed in torch with TensorFlow's SAME padding made by hand; `x` [B, H, W, 3], `y/BLOCK` the
  residual sum of every block, before its ReLU.
- `interop_names.npz`: `LIBRARY/MODEL` = "NAME SHAPE" of every entry of full-size models.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from torch.nn import functional


def randomise(model):
    """Statistics, scales and shifts of a trained network's order of magnitude."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def entries(model):
    return {f"w/{name}": value.numpy() for name, value in model.state_dict().items()}


def small_timm(folder):
    torch.manual_seed(10)
    # timm's stem has 64 channels whatever the stages have.
    model = randomise(ResNet(Bottleneck, (1, 2, 1, 1), channels=(4, 8, 8, 12), num_classes=5))
    x = torch.rand(2, 3, 40, 33)
    out = {"x": x.numpy(), **entries(model)}
    y = model.maxpool(model.act1(model.bn1(model.conv1(x))))
    for stage in range(1, 5):
        y = getattr(model, f"layer{stage}")(y)
        out[f"y/{stage}"] = y.numpy()
    np.savez_compressed(folder / "interop_timm.npz", **out)


def small_huggingface(folder):
    torch.manual_seed(11)
    config = transformers.ResNetConfig(
        embedding_size=6, hidden_sizes=[16, 32, 64], depths=[2, 1, 2], num_labels=4
    )
    model = randomise(transformers.ResNetForImageClassification(config))
    x = torch.rand(2, 3, 40, 33)
    out = {"x": x.numpy(), **entries(model)}
    for stage, y in enumerate(model(x, output_hidden_states=True).hidden_states[1:], start=1):
        out[f"y/{stage}"] = y.numpy()
    np.savez_compressed(folder / "interop_huggingface.npz", **out)


def same(x, size, stride, value=0.0):
    """Pads so that the output has ceil(input / stride) places; the odd row goes to the end."""
    pads = []
    for length in (x.shape[3], x.shape[2]):  # torch begins with the last axis
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value)


class KerasNetwork:
    """Makes layers in DeepDanbooru's order and computes them at once."""

    def __init__(self):
        self.layers, self.weights = {}, {}

    def numbered(self, kind):
        number = self.layers.get(kind, 0)
        self.layers[kind] = number + 1
        return f"{kind}_{number}" if number else kind

    def keep(self, layer, **arrays):
        for name, array in arrays.items():
            # Twice, as Keras does: the group of the layer, then the name of the variable.
            self.weights[f"w/{layer}/{layer}/{name}:0"] = array.numpy()

    def convolution(self, x, outputs, size, stride):
        kernel = torch.randn(size, size, x.shape[1], outputs) / (size * x.shape[1] ** 0.5)
        self.keep(self.numbered("conv2d"), kernel=kernel)
        return functional.conv2d(same(x, size, stride), kernel.permute(3, 2, 0, 1), stride=stride)

    def norm(self, x):
        gamma, beta = torch.rand(x.shape[1]) + 0.5, torch.randn(x.shape[1]) * 0.3
        mean, variance = torch.randn(x.shape[1]) * 0.3, torch.rand(x.shape[1]) + 1e-3
        layer = self.numbered("batch_normalization")
        self.keep(layer, gamma=gamma, beta=beta, moving_mean=mean, moving_variance=variance)
        shaped = [values[None, :, None, None] for values in (gamma, beta, mean, variance)]
        gamma, beta, mean, variance = shaped
        return gamma * (x - mean) / torch.sqrt(variance + 1e-3) + beta

    def block(self, x, outputs, stride, first):
        y = torch.relu(self.norm(self.convolution(x, outputs // 4, 1, 1)))
        y = torch.relu(self.norm(self.convolution(y, outputs // 4, 3, stride)))
        y = self.norm(self.convolution(y, outputs, 1, 1))
        if first:
            x = self.norm(self.convolution(x, outputs, 1, stride))
        return y + x


def small_keras(folder):
    torch.manual_seed(12)
    network = KerasNetwork()
    # Sizes on the way: 36 x 30, 18 x 15, 9 x 8, 5 x 4: even and odd ones at every stride of 2.
    x = torch.rand(2, 3, 36, 30)
    out = {"x": x.permute(0, 2, 3, 1).numpy()}
    y = torch.relu(network.norm(network.convolution(x, 4, 7, 2)))
    y = functional.max_pool2d(same(y, 3, 2, -torch.inf), 3, 2)
    number = 0
    for stage, (outputs, blocks) in enumerate(zip((16, 24, 24), (3, 2, 2), strict=True)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            total = network.block(y, outputs, stride, block == 0)
            out[f"y/{number}"] = total.permute(0, 2, 3, 1).numpy()
            y, number = torch.relu(total), number + 1
    network.convolution(y, 7, 1, 1)  # seven tags
    np.savez_compressed(folder / "interop_keras.npz", **out, **network.weights)


def names(folder):
    out = {}
    for depth in (50, 101, 152):
        model = timm.create_model(f"resnet{depth}")
        out[f"timm/resnet{depth}"] = model.state_dict()
    config = transformers.ResNetConfig(depths=[3, 4, 23, 3])
    model = transformers.ResNetForImageClassification(config)
    out["huggingface/resnet101"] = model.state_dict()
    lines = {
        name: np.array([f"{key} {'x'.join(map(str, x.shape))}" for key, x in entries.items()])
        for name, entries in out.items()
    }
    np.savez_compressed(folder / "interop_names.npz", **lines)


if __name__ == "__main__":
    with torch.no_grad():
        for make in (small_timm, small_huggingface, small_keras, names):
            make(Path(sys.argv[1]))
