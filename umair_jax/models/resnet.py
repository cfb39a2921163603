"""Bottleneck ResNet of any depth and width, numerically torchvision's or Keras's."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from umair_jax.models import pooling
from umair_jax.models.initialise import Draws, normal

BLOCKS_OF_DEPTH = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
PADDINGS = ("symmetric", "same")
REMATS = ("none", "block")


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Shape of the network.

    Attributes:
        depth: 50, 101 or 152: which row of the original paper's table gives the blocks per stage.
        base_width: Channels of the stem; 64 is the standard width.
        blocks: Blocks per stage, in place of those of `depth`, for any number of stages; empty =
            those of `depth`.
        widths: Inner (bottleneck) channels of each stage; a stage has four times as many output
            channels. Empty = base_width * 2**(s-1) for stage s (from 1).
        padding: How 3x3 and 7x7 windows reach over the edge. "symmetric" adds kernel // 2 on every
            side (torch); "same" is Keras's and TensorFlow's SAME, which at stride 2 and even sizes
            adds one less at the top and left than at the bottom and right.
        last_gamma: Initial scale of the last BatchNorm of every block. 1 is torchvision's
            default, 0 its `zero_init_residual`. Only matters before weights are trained or loaded.
        epsilon: Added to the variance by every BatchNorm.
        momentum: Share of the old running statistics kept by one training step
            (torch's momentum 0.1 is 0.9 here).
        dtype: "float32" or "bfloat16": type of the convolutions' inputs. Parameters, statistics
            and normalisation are float32 in both cases.
        remat: "none", or "block": training keeps each block's input alone and computes the rest
            again on the way back. For accelerators: XLA's compiler for CPUs drops the barriers that
            hold this back until it is needed, and does the work without saving the memory.

    The backbone of the paper's authors is DeepDanbooru's third ResNet, Keras weights included:

    >>> cfg = ResNetConfig(
    ...     blocks=(3, 8, 20, 20, 3, 3), widths=(64, 128, 256, 256, 512, 1024), padding="same",
    ...     epsilon=1e-3, momentum=0.99, last_gamma=0.0,
    ... )
    >>> [cfg.channels(stage) for stage in range(1, 7)]
    [256, 512, 1024, 1024, 2048, 4096]
    """

    depth: int = 101
    base_width: int = 64
    blocks: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    padding: str = "symmetric"
    last_gamma: float = 1.0
    epsilon: float = 1e-5
    momentum: float = 0.9
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self):
        if self.depth not in BLOCKS_OF_DEPTH:
            raise ValueError(
                f"ResNet depth: got {self.depth}, expected one of {sorted(BLOCKS_OF_DEPTH)}; "
                "use blocks=(...) for another number of blocks per stage."
            )
        if self.base_width < 1:
            raise ValueError(f"ResNet base_width: got {self.base_width}, expected at least 1.")
        if self.blocks and min(self.blocks) < 1:
            raise ValueError(
                f"ResNet blocks: got {self.blocks}, expected at least 1 in each stage."
            )
        if self.widths and min(self.widths) < 1:
            raise ValueError(
                f"ResNet widths: got {self.widths}, expected at least 1 in each stage."
            )
        if self.widths and len(self.widths) != len(self.blocks_per_stage):
            raise ValueError(
                f"ResNet widths: got {self.widths} for blocks {self.blocks_per_stage}, expected "
                "one width per stage; give blocks=(...) for another number of stages."
            )
        closed = {"dtype": tuple(DTYPES), "padding": PADDINGS, "remat": REMATS}
        for name, options in closed.items():
            if getattr(self, name) not in options:
                raise ValueError(
                    f"ResNet {name}: got {getattr(self, name)!r}, expected one of {options}."
                )

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Number of bottleneck blocks of each stage."""
        return self.blocks or BLOCKS_OF_DEPTH[self.depth]

    @property
    def widths_per_stage(self) -> tuple[int, ...]:
        """Inner (bottleneck) channels of each stage."""
        doubled = (self.base_width * 2**i for i in range(len(self.blocks_per_stage)))
        return self.widths or tuple(doubled)

    def channels(self, stage: int) -> int:
        """Output channels of a stage, counted from 1; those of the stem for 0."""
        if stage == 0:
            return self.base_width
        return EXPANSION * self.widths_per_stage[stage - 1]


class Convolution(nnx.Module):
    """Square convolution without bias, zeros around the map."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        padding: str = "symmetric",
        *,
        rngs: Draws,
    ):
        # Kaiming normal over the fan-out, torchvision's choice for its ResNets.
        scale = math.sqrt(2.0 / (outputs * size * size))
        shape = (size, size, inputs, outputs)
        self.kernel = nnx.Param(normal(rngs, shape, scale))
        self.size = size
        self.stride = stride
        self.padding = padding

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Convolves in the dtype of `x`."""
        return convolve(x, self.kernel[...].astype(x.dtype), self.stride, self.padding)


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, in float32.

    The running variance is the biased one (torch keeps the unbiased one; the two differ by
    n / (n - 1) with n = B * H * W, and only after training here).
    """

    def __init__(self, width: int, cfg: ResNetConfig, *, gamma: float = 1.0):
        self.scale = nnx.Param(jnp.full((width,), gamma, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((width,), jnp.float32))
        self.epsilon = cfg.epsilon
        self.momentum = cfg.momentum

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Normalises; in training with the batch's statistics, which update the running ones."""
        if train:
            values = x.astype(jnp.float32)
            mean = values.mean((0, 1, 2))
            var = jnp.square(values - mean).mean((0, 1, 2))
            keep = self.momentum
            self.mean[...] = keep * self.mean[...] + (1 - keep) * jax.lax.stop_gradient(mean)
            self.var[...] = keep * self.var[...] + (1 - keep) * jax.lax.stop_gradient(var)
        else:
            mean, var = self.mean[...], self.var[...]
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * scale
        return (x.astype(jnp.float32) * scale + shift).astype(x.dtype)


class Bottleneck(nnx.Module):
    """1x1 - 3x3 (stride) - 1x1 convolutions around a shortcut, named as in torchvision."""

    def __init__(self, inputs: int, width: int, stride: int, cfg: ResNetConfig, *, rngs: Draws):
        outputs = EXPANSION * width
        self.conv1 = Convolution(inputs, width, 1, 1, rngs=rngs)
        self.bn1 = BatchNorm(width, cfg)
        self.conv2 = Convolution(width, width, 3, stride, cfg.padding, rngs=rngs)
        self.bn2 = BatchNorm(width, cfg)
        self.conv3 = Convolution(width, outputs, 1, 1, rngs=rngs)
        self.bn3 = BatchNorm(outputs, cfg, gamma=cfg.last_gamma)
        self.project = stride > 1 or inputs != outputs
        if self.project:
            self.downsample_conv = Convolution(inputs, outputs, 1, stride, rngs=rngs)
            self.downsample_bn = BatchNorm(outputs, cfg)

    def __call__(
        self, x: Float[Array, "B H W C"], train: bool
    ) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]]:
        """Returns the residual sum and its ReLU."""
        y = jax.nn.relu(self.bn1(self.conv1(x), train))
        y = jax.nn.relu(self.bn2(self.conv2(y), train))
        y = self.bn3(self.conv3(y), train)
        if self.project:
            x = self.downsample_bn(self.downsample_conv(x), train)
        return x + y, relu_of_sum(x, y)


class Stage(nnx.Module):
    """A row of blocks, the first of which may halve the resolution."""

    def __init__(
        self, inputs: int, width: int, stride: int, blocks: int, cfg: ResNetConfig, *, rngs: Draws
    ):
        self.blocks = blocks
        self.remat = cfg.remat
        for i in range(blocks):
            # String-named attributes, not a list: integer keys break exported pytrees.
            block = Bottleneck(inputs, width, stride, cfg, rngs=rngs)
            setattr(self, f"block{i}", block)
            inputs, stride = EXPANSION * width, 1

    def __call__(
        self, x: Float[Array, "B H W C"], train: bool
    ) -> tuple[tuple[Float[Array, "B h w D"], ...], Float[Array, "B h w D"]]:
        """Returns the residual sums of all blocks, before their ReLU, and the last one's ReLU."""
        sums = []
        for i in range(self.blocks):
            block = getattr(self, f"block{i}")
            if self.remat == "block":
                total, x = _rematerialised(block, x, train)
            else:
                total, x = block(x, train)
            sums.append(total)
        return tuple(sums), x


class ResNet(nnx.Module):
    """Bottleneck ResNet without a classification head, every block's output within reach.

    Source: He et al. 2015, in torchvision's variant (the stride sits in the 3x3 convolution).
    """

    def __init__(self, cfg: ResNetConfig, *, rngs: Draws):
        self.cfg = cfg
        inputs = cfg.base_width
        self.conv1 = Convolution(3, inputs, 7, 2, cfg.padding, rngs=rngs)
        self.bn1 = BatchNorm(inputs, cfg)
        shapes = zip(cfg.widths_per_stage, cfg.blocks_per_stage, strict=True)
        for stage, (width, blocks) in enumerate(shapes, start=1):
            stride = 1 if stage == 1 else 2
            room = Stage(inputs, width, stride, blocks, cfg, rngs=rngs)
            setattr(self, f"layer{stage}", room)
            inputs = cfg.channels(stage)

    def __call__(
        self, images: Float[Array, "B H W 3"], train: bool = False
    ) -> tuple[tuple[Float[Array, "B _h _w _c"], ...], ...]:
        """Runs the network.

        Args:
            images: Float, channels last; normalised as the weights expect.
            train: Use and update batch statistics.

        Returns:
            For each stage the residual sums of its blocks, BEFORE the ReLU that follows each
            (apply `jax.nn.relu` for the outputs after it). Under `jax.jit` the ones that are not
            used cost nothing.
        """
        return self.stages(self.stem(images, train), train)

    def stem(self, images: Float[Array, "B H W 3"], train: bool = False) -> Float[Array, "B h w C"]:
        """The first convolution with BatchNorm and ReLU, at half the resolution of the images."""
        x = images.astype(DTYPES[self.cfg.dtype])
        return jax.nn.relu(self.bn1(self.conv1(x), train))

    def stages(
        self, stem: Float[Array, "B h w C"], train: bool = False
    ) -> tuple[tuple[Float[Array, "B _h _w _c"], ...], ...]:
        """What follows the stem, from its max-pool on; returns what a call of the network does."""
        x = max_pool(stem, self.cfg.padding)
        outputs = []
        for stage in range(1, len(self.cfg.blocks_per_stage) + 1):
            sums, x = getattr(self, f"layer{stage}")(x, train)
            outputs.append(sums)
        return tuple(outputs)


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C D"], stride: int, padding: str
) -> Float[Array, "B h w D"]:
    """Convolution with a square kernel, see `ResNetConfig.padding`."""
    if kernel.shape[0] == 1:
        # A 1 x 1 convolution is a matrix product; written as one it runs faster on CPUs,
        # most of all for large batches.
        if stride > 1:
            x = x[:, ::stride, ::stride]
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=_pads(padding, kernel.shape[0]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@jax.custom_jvp
def relu_of_sum(x: Float[Array, "*S"], y: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """relu(x + y), rounding included, in a form that XLA computes once.

    XLA's CPU backend copies a function of one array, as the ReLU of a sum is, into every reader,
    together with what the sum is made of: along a stage every block would add up all earlier ones
    again.
    """
    return jnp.maximum(x, -y) + y


@relu_of_sum.defjvp
def _relu_of_sum_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]):
    z = relu_of_sum(*primals)
    return z, jnp.where(z > 0, tangents[0] + tangents[1], 0)


def max_pool(x: Float[Array, "B H W C"], padding: str = "symmetric") -> Float[Array, "B h w C"]:
    """3x3 max-pool of stride 2, padded with minus infinity (see `ResNetConfig.padding`)."""
    if padding == "same":  # at stride 2 an even size needs one more at the end only
        rows, columns = ((size % 2, 1) for size in x.shape[1:3])
        return pooling.max_pool(x, (rows, columns))
    return pooling.max_pool(x, ((1, 1), (1, 1)))


def _pads(padding: str, size: int) -> str | tuple[tuple[int, int], tuple[int, int]]:
    if padding == "same":
        return "SAME"
    pair = (size // 2, size // 2)
    return pair, pair


def _rematerialised(
    block: Bottleneck, x: Float[Array, "B H W C"], train: bool
) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]]:
    """The block's outputs; only `x` is kept for the way back, where there is one.

    A pure function of parameters, statistics and input goes under `jax.checkpoint`. It returns the
    new statistics, because what is written to a module inside a transformation is lost.
    """
    graph, params, stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    @jax.checkpoint
    def run(params, stats, x):
        copy = nnx.merge(graph, params, stats)
        return copy(x, train), nnx.to_pure_dict(nnx.state(copy, nnx.BatchStat))

    outputs, updated = run(nnx.to_pure_dict(params), nnx.to_pure_dict(stats), x)
    nnx.replace_by_pure_dict(stats, updated)
    nnx.update(block, stats)
    return outputs
