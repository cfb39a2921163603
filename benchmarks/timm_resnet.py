"""The peer of the ResNet's benchmark: timm's network in torch, if both are installed."""

from __future__ import annotations

import copy
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np

PACKAGES = ("torch", "timm")


class Peers:
    """Forward passes and train steps of timm's resnet in torch.

    Attributes:
        missing: Why there are none; "" where there are.
    """

    def __init__(self, depth: int, bfloat16: bool, tags: int) -> None:
        """Builds the network, on the GPU if torch sees one.

        Args:
            depth: 50, 101 or 152.
            bfloat16: Weights in bfloat16 for inference, autocast in training; else float32.
            tags: Width of the head that is trained.
        """
        self.missing = ""
        try:
            import timm
            import torch
        except Exception as error:  # a torchvision that does not fit raises RuntimeError
            self.missing = f"torch and timm cannot be imported: {error}"
            return
        self._torch, self._bfloat16 = torch, bfloat16
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.benchmark = True  # as XLA tries several kernels and takes the fastest
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._network = timm.create_model(f"resnet{depth}", num_classes=tags)
        self.about: dict[str, Any] = {
            "torch_threads": torch.get_num_threads(),
            "torch_device": str(self._device),
            "torch_versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }

    def wait(self, result: object) -> None:
        """Returns when the GPU has done everything; on the CPU it has."""
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()

    def inference(
        self, images: np.ndarray, channels_last: bool, compiled: bool
    ) -> Callable[[], object]:
        """The pooled features (no head) of images [B, H, W, 3]."""
        torch, layout = self._torch, self._layout(channels_last)
        network = copy.deepcopy(self._network).eval().to(self._device, self._dtype)
        network.reset_classifier(0)
        network = network.to(memory_format=layout)
        if compiled:
            network = torch.compile(network)
        batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        batch = batch.to(self._device, self._dtype).contiguous(memory_format=layout)

        def run() -> object:
            with torch.inference_mode():
                return network(batch)

        return run

    def train_step(
        self, images: np.ndarray, labels: np.ndarray, channels_last: bool, compiled: bool
    ) -> Callable[[], object]:
        """One step of SGD with momentum on the sum over tags of the binary cross-entropy."""
        torch, layout = self._torch, self._layout(channels_last)
        network = copy.deepcopy(self._network).train().to(self._device)
        network = network.to(memory_format=layout)
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        call = torch.compile(network) if compiled else network
        batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        batch = batch.to(self._device).contiguous(memory_format=layout)
        target = torch.from_numpy(labels).to(self._device)

        def run() -> object:
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
                logits = call(batch)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                logits.float(), target, reduction="sum"
            ) / len(target)
            loss.backward()
            optimiser.step()
            return loss.detach()

        return run

    def peak_bytes(self, work: Callable[[], object]) -> int | None:
        """The most memory of the GPU in use during the work; None on a CPU."""
        if self._device.type != "cuda":
            return None
        self._torch.cuda.reset_peak_memory_stats()
        work()
        self.wait(None)
        return self._torch.cuda.max_memory_allocated()

    def _layout(self, channels_last: bool) -> Any:
        return self._torch.channels_last if channels_last else self._torch.contiguous_format
