"""Writes the torch goldens: random weights, inputs and outputs of small reference networks.

Needs torch 2.13 and transformers 5 (nothing is downloaded); the tests that read the files need
neither:

    python tests/golden/make_torch_goldens.py tests/golden

Keys: `w/NAME` weights by the reference's own names, `x...` inputs, `y...` outputs.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        """The residual sum before the ReLU."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return y + (x if self.downsample is None else self.downsample(x))


class ResNet(nn.Module):
    """Bottleneck ResNet with torchvision's names."""

    def __init__(self, width, blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = width
        for stage, count in enumerate(blocks):
            room = []
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                room.append(Bottleneck(inputs, width * 2**stage, stride))
                inputs = 4 * width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.ModuleList(room))
        self.stages = len(blocks)

    def forward(self, x):
        """Residual sums of all blocks, stage by stage."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        sums = []
        for stage in range(self.stages):
            for block in getattr(self, f"layer{stage + 1}"):
                sums.append(block(x))
                x = torch.relu(sums[-1])
        return sums


def randomise_statistics(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)


def randomise_all(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
        if parameter.ndim == 1:
            parameter.data += 0.5


def arrays(model):
    # Copies: BatchNorm updates its statistics in place.
    return {f"w/{k}": v.numpy().copy() for k, v in model.state_dict().items() if v.ndim}


def resnet(folder):
    torch.manual_seed(0)
    model = ResNet(4, (2, 1, 2, 1))
    randomise_statistics(model)
    # An odd size: paddings of even and odd maps differ.
    x = torch.rand(2, 3, 65, 47)
    out = {"x": x.numpy(), **arrays(model)}
    model.eval()
    for i, y in enumerate(model(x)):
        out[f"y/{i}"] = y.numpy()
    model.train()
    for i, y in enumerate(model(x)):
        out[f"y_train/{i}"] = y.numpy()
    out["after/bn1.running_mean"] = model.bn1.running_mean.numpy()
    np.savez_compressed(folder / "torch_resnet.npz", **out)


def text_models(folder):
    torch.manual_seed(1)
    tokens = torch.randint(0, 40, (3, 9))
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
    types = torch.tensor([[0] * 4 + [1] * 5] * 3)
    size = {"vocab_size": 40, "max_position_embeddings": 12}
    bert = BertModel(
        BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=24,
            **size,
        ),
        add_pooling_layer=False,
    )
    distilbert = DistilBertModel(
        DistilBertConfig(dim=16, n_layers=2, n_heads=4, hidden_dim=24, **size)
    )
    for name, model, extra in (
        ("bert", bert, {"token_type_ids": types}),
        ("distilbert", distilbert, {}),
    ):
        randomise_all(model)
        model.eval()
        hidden = model(input_ids=tokens, attention_mask=mask, **extra).last_hidden_state
        weights = mask[..., None].float()
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        np.savez_compressed(
            folder / f"torch_{name}.npz",
            x_tokens=tokens.numpy(),
            x_mask=mask.numpy(),
            x_types=types.numpy(),
            y_hidden=hidden.numpy(),
            y_pooled=pooled.numpy(),
            **arrays(model),
        )


if __name__ == "__main__":
    with torch.no_grad():
        resnet(Path(sys.argv[1]))
        text_models(Path(sys.argv[1]))
