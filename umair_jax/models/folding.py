"""The network of fixed weights: same outputs, BatchNorm inside the convolutions, fewer passes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models import winograd
from umair_jax.models.image_encoder import ImageEncoder, ImageVectors
from umair_jax.models.resnet import (
    DTYPES,
    BatchNorm,
    Bottleneck,
    Convolution,
    ResNet,
    Stage,
    convolve,
    max_pool,
    relu_of_sum,
)

# From this many channels on, transforming the maps costs a CPU less than the saved products.
_WINOGRAD_CHANNELS = 32
# Maps of the first stage that a CPU works on at a time: more would not stay in its caches.
_PIECE_BYTES = 13 * 2**20


class FoldedConvolution(nnx.Module):
    """Convolution and BatchNorm with running statistics as one convolution with a bias."""

    def __init__(self, convolution: Convolution, norm: BatchNorm, dtype: str, fast: bool):
        """Folds in float64.

        Args:
            convolution: Whose kernel.
            norm: What follows it.
            dtype: Of the kernel, as in ResNetConfig.
            fast: Use Winograd's algorithm where it pays.
        """
        kernel, scale, bias, mean, var = (
            np.asarray(value[...], np.float64)
            for value in (convolution.kernel, norm.scale, norm.bias, norm.mean, norm.var)
        )
        factor = scale / np.sqrt(var + norm.epsilon)
        kernel = (kernel * factor).astype(np.float32)
        self.size, self.stride = convolution.size, convolution.stride
        self.padding = convolution.padding
        self.fast = fast and self.size == 3 and self.stride == 1 and dtype == "float32"
        self.fast = self.fast and min(kernel.shape[2:]) >= _WINOGRAD_CHANNELS
        if self.fast:
            kernel = winograd.transformed(kernel)
        self.kernel = nnx.Param(jnp.asarray(kernel, DTYPES[dtype]))
        self.bias = nnx.Param(jnp.asarray(bias - mean * factor, jnp.float32))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Convolves in the dtype of the kernel; the bias is added in float32."""
        kernel = self.kernel[...]
        if self.fast:
            y = winograd.convolve(x, kernel)
        else:
            y = convolve(x, kernel, self.stride, self.padding)
        return (y.astype(jnp.float32) + self.bias[...]).astype(x.dtype)


class FoldedBottleneck(nnx.Module):
    """Bottleneck of folded convolutions."""

    def __init__(self, block: Bottleneck, dtype: str, fast: bool):
        self.conv1 = FoldedConvolution(block.conv1, block.bn1, dtype, fast)
        self.conv2 = FoldedConvolution(block.conv2, block.bn2, dtype, fast)
        self.conv3 = FoldedConvolution(block.conv3, block.bn3, dtype, fast)
        self.project = block.project
        if self.project:
            self.downsample = FoldedConvolution(
                block.downsample_conv, block.downsample_bn, dtype, fast
            )

    def __call__(self, x: Float[Array, "B H W C"]) -> tuple[Array, Array]:
        """Returns the residual sum and its ReLU."""
        y = jax.nn.relu(self.conv1(x))
        y = jax.nn.relu(self.conv2(y))
        y = self.conv3(y)
        if self.project:
            x = self.downsample(x)
        return x + y, relu_of_sum(x, y)


class FoldedResNet(nnx.Module):
    """A ResNet of fixed weights, with the outputs of the one that it was made from."""

    def __init__(self, network: ResNet, fast: bool):
        """Folds the weights as they are now.

        Args:
            network: Not modified.
            fast: Use Winograd's algorithm where it pays.
        """
        self.cfg = cfg = network.cfg
        self.fast = fast
        self.conv1 = FoldedConvolution(network.conv1, network.bn1, cfg.dtype, fast)
        for stage, blocks in enumerate(cfg.blocks_per_stage, start=1):
            room: Stage = getattr(network, f"layer{stage}")
            for i in range(blocks):
                block = FoldedBottleneck(getattr(room, f"block{i}"), cfg.dtype, fast)
                setattr(self, f"layer{stage}_block{i}", block)

    def __call__(
        self, images: Float[Array, "B H W 3"], train: bool = False
    ) -> tuple[tuple[Float[Array, "B _h _w _c"], ...], ...]:
        """Runs the network; arguments and results as of `ResNet.__call__`.

        Raises:
            ValueError: `train` is True.
        """
        return self.stages(self.stem(images, train), train)

    def stem(self, images: Float[Array, "B H W 3"], train: bool = False) -> Float[Array, "B h w C"]:
        """As `ResNet.stem`."""
        _refuse(train)
        return jax.nn.relu(self.conv1(images.astype(DTYPES[self.cfg.dtype])))

    def stages(
        self, stem: Float[Array, "B h w C"], train: bool = False
    ) -> tuple[tuple[Float[Array, "B _h _w _c"], ...], ...]:
        """As `ResNet.stages`."""
        _refuse(train)
        x = max_pool(stem, self.cfg.padding)
        stages = []
        for stage, blocks in enumerate(self.cfg.blocks_per_stage, start=1):
            sums = []
            for i in range(blocks):
                total, x = getattr(self, f"layer{stage}_block{i}")(x)
                sums.append(total)
            stages.append(tuple(sums))
        return tuple(stages)


def _refuse(train: bool) -> None:
    if train:
        raise ValueError("a folded network has no batch statistics; train the one before it")


class FoldedImageEncoder(ImageEncoder):
    """An image encoder for inference alone, with the vectors of another up to rounding."""

    def __init__(self, encoder: ImageEncoder, fast: bool | None = None):
        """Folds the weights as they are now.

        Args:
            encoder: Trained or calibrated; not modified.
            fast: Take the forms that are faster on CPUs: Winograd's algorithm, and some images at
                a time; None = on a CPU.
        """
        self.cfg = encoder.cfg
        self.fast = jax.default_backend() == "cpu" if fast is None else fast
        self.backbone = FoldedResNet(encoder.backbone, self.fast)
        self.style_head = nnx.merge(*nnx.split(encoder.style_head))
        for name in ("whiten_content", "whiten_style"):
            if getattr(self.cfg, name):
                setattr(self, name, nnx.merge(*nnx.split(getattr(encoder, name))))

    def __call__(self, images: Float[Array, "B H W 3"], train: bool = False) -> ImageVectors:
        """As `ImageEncoder.__call__`, for as many images at a time as a CPU's caches have room for.

        Raises:
            ValueError: `train` is True.
        """
        size = self.piece(images.shape) if self.fast else len(images)
        if size == len(images):
            return super().__call__(images, train)
        # A piece takes its images from all over the batch, so that devices share each of them.
        pieces = images.reshape(size, -1, *images.shape[1:]).swapaxes(0, 1)
        vectors = jax.lax.map(
            lambda piece: super(FoldedImageEncoder, self).__call__(piece, train), pieces
        )
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, x.shape[-1]), vectors)

    def piece(self, shape: tuple[int, ...]) -> int:
        """How many images of a batch of that shape are best encoded at a time on a CPU."""
        maps = 4 * (shape[1] // 4) * (shape[2] // 4) * self.cfg.resnet.channels(1)
        most = min(max(1, _PIECE_BYTES // maps), shape[0])
        return max(n for n in range(1, most + 1) if shape[0] % n == 0)
