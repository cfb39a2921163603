"""Building blocks of the ranker: dense layer, batch normalisation, dropout, multi-layer network."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_choice(what: str, value: object, allowed: Sequence[str]) -> None:
    """Refuses a word that is not one of a closed set.

    Raises:
        ValueError: `value` is not in `allowed`.
    """
    if value not in allowed:
        raise ValueError(f"{what}: got {value!r}, expected one of {', '.join(allowed)}")


def split_key(key: jax.Array | None, parts: int) -> Sequence[jax.Array | None]:
    """Splits a key; without one (no dropout wanted) every part is None."""
    return [None] * parts if key is None else list(jax.random.split(key, parts))


def dropout(
    x: Float[Array, "*B D"], rate: float, key: Key[Array, ""] | None
) -> Float[Array, "*B D"]:
    """Zeroes elements with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
        x: Any float array; the last axis is the widest.
        rate: In [0, 1).
        key: Needed where `rate` is above 0.

    Raises:
        ValueError: No key at a rate above 0.
    """
    if rate == 0.0:
        return x
    if key is None:
        raise ValueError(f"dropout: got no key at rate {rate} in training; pass key=")
    if rate == 0.5:
        # A fair coin needs one bit of the generator, not the 32 that a uniform draw takes.
        words = -(-x.shape[-1] // 32)
        bits = jax.random.bits(key, (*x.shape[:-1], words), jnp.uint32)
        coins = (bits[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
        keep = coins.reshape(*x.shape[:-1], words * 32)[..., : x.shape[-1]] == 1
    else:
        keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), 0.0).astype(x.dtype)


def _blocks(parts: Sequence[jax.Array], kernel: jax.Array) -> list[jax.Array]:
    """The rows of the kernel that belong to each part."""
    edges = np.cumsum([0] + [x.shape[-1] for x in parts])
    return [kernel[start:stop] for start, stop in itertools.pairwise(edges)]


# What goes into a product has the given type; sums, and what comes out, are float32.
_sum_of_products = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _matmul(dtype: str, parts: tuple[jax.Array, ...], kernel: jax.Array) -> jax.Array:
    parts, kernel = _cast(dtype, parts, kernel)
    pairs = zip(parts, _blocks(parts, kernel), strict=True)
    return functools.reduce(operator.add, [_sum_of_products(x, block) for x, block in pairs])


def _matmul_forward(dtype: str, parts: tuple[jax.Array, ...], kernel: jax.Array):
    return _matmul(dtype, parts, kernel), (parts, kernel)


def _matmul_backward(dtype: str, saved: tuple[tuple[jax.Array, ...], jax.Array], dy: jax.Array):
    kinds, kernel_kind = [x.dtype for x in saved[0]], saved[1].dtype
    parts, kernel = _cast(dtype, *saved)
    dy = dy.astype(kernel.dtype)
    dkernel = jax.lax.platform_dependent(dy, *parts, cpu=_dkernel_on_cpu, default=_dkernel)
    blocks = zip(_blocks(parts, kernel), kinds, strict=True)
    dparts = tuple(_sum_of_products(dy, block.T).astype(kind) for block, kind in blocks)
    return dparts, dkernel.astype(kernel_kind)


def _cast(
    dtype: str, parts: tuple[jax.Array, ...], kernel: jax.Array
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    return tuple(x.astype(DTYPES[dtype]) for x in parts), kernel.astype(DTYPES[dtype])


def _dkernel(dy: jax.Array, *parts: jax.Array) -> jax.Array:
    return jnp.concatenate([_sum_of_products(x.T, dy) for x in parts])


def _dkernel_on_cpu(dy: jax.Array, *parts: jax.Array) -> jax.Array:
    # XLA's CPU product is two to three times slower when it has to walk the wide x by columns.
    # Transposing the narrow dy first avoids that; the barriers keep XLA from undoing it, and from
    # reading the result by columns anew wherever the optimiser needs it.
    barrier = jax.lax.optimization_barrier
    narrow = barrier(dy.T)
    found = [barrier(_sum_of_products(narrow, x)) for x in parts]
    return barrier(jnp.concatenate(found, axis=1).T)


_matmul.defvjp(_matmul_forward, _matmul_backward)


def product(
    x: Float[Array, "B I"], kernel: Float[Array, "I O"], dtype: str = "float32"
) -> Float[Array, "B O"]:
    """Matrix product whose inputs (and gradients, on the way back) have type `dtype`.

    Args:
        x: Any float type.
        kernel: Any float type.
        dtype: "float32" or "bfloat16".

    Returns:
        Float32 array.
    """
    return _product((x,), kernel, dtype)


def _product(parts: Sequence[jax.Array], kernel: jax.Array, dtype: str) -> jax.Array:
    return _matmul(dtype, tuple(parts), kernel)


class Dense(nnx.Module):
    """Affine layer on the concatenation of its inputs, without building that concatenation.

    y = sum_i x_i W_i + b, W_i being the rows of the kernel that belong to input i. Besides the
    copy, this saves the gradient towards inputs that need none, such as stored vectors.
    Initialised as in Keras: glorot-uniform kernel, zero bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rngs: nnx.Rngs,
        use_bias: bool = True,
        dtype: str = "float32",
    ):
        check_choice("dtype", dtype, tuple(DTYPES))
        init = nnx.initializers.glorot_uniform()
        self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32)) if use_bias else None
        self.dtype = dtype

    def __call__(self, *inputs: Float[Array, "B _"]) -> Float[Array, "B D"]:
        """Applies the layer.

        Args:
            *inputs: Parts [B, D_i] in the order of the kernel's rows, any float dtype.

        Returns:
            Array [B, outputs], float32 whatever the type of the products.

        Raises:
            ValueError: The parts' widths do not add up to the kernel's rows.
        """
        kernel = self.kernel[...]
        widths = [x.shape[-1] for x in inputs]
        if sum(widths) != kernel.shape[0]:
            raise ValueError(f"Dense inputs: got widths {widths}, expected a sum {kernel.shape[0]}")
        y = _product(inputs, kernel, self.dtype)
        return y if self.bias is None else y + self.bias[...]


class BatchNorm(nnx.Module):
    """Batch normalisation over all axes but the last, float32, with weighted examples.

    Keras's defaults: momentum .99 (share of the old statistics kept), epsilon 1e-3, biased
    variance. A weight of 0 takes an example out of the statistics (padding); a weight n counts
    it n times (a row that stands for n examples).
    """

    def __init__(self, features: int, *, momentum: float = 0.99, epsilon: float = 1e-3):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(
        self,
        x: Float[Array, "B D"],
        train: bool = False,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Normalises by the batch's statistics in training (and updates the running ones).

        Args:
            x: Activations.
            train: Whether to use and record the batch's own statistics.
            weight: Weight of each example in them, >= 0; None = 1 each.

        Returns:
            Float32 array of the shape of `x`.
        """
        x = x.astype(jnp.float32)
        if train:
            if weight is None:
                mean = x.mean(axis=0)
                centred = x - mean
                var = jnp.square(centred).mean(axis=0)
                keep = self.momentum
            else:
                total = weight.sum()
                share = (weight / jnp.maximum(total, 1e-12))[:, None]
                mean = (share * x).sum(axis=0)
                centred = x - mean
                var = (share * jnp.square(centred)).sum(axis=0)
                # A batch of nothing but padding says nothing about the statistics.
                keep = jnp.where(total > 0, self.momentum, 1.0)
            for stat, new in ((self.mean, mean), (self.var, var)):
                stat[...] = keep * stat[...] + (1.0 - keep) * jax.lax.stop_gradient(new)
        else:
            centred = x - self.mean[...]
            var = self.var[...]
        return centred * (self.scale[...] * jax.lax.rsqrt(var + self.epsilon)) + self.bias[...]


class Block(nnx.Module):
    """Dense -> BatchNorm -> ReLU -> dropout."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, rate: float = 0.5, dtype: str):
        self.dense = Dense(inputs, outputs, rngs=rngs, dtype=dtype)
        self.norm = BatchNorm(outputs)
        self.rate = rate

    def __call__(
        self,
        *inputs: Float[Array, "B _"],
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Applies the block to the concatenation of its inputs; see `Dense` and `BatchNorm`."""
        y = jax.nn.relu(self.norm(self.dense(*inputs), train, weight))
        return dropout(y, self.rate, key) if train else y


class MLP(nnx.Module):
    """A chain of blocks; parameter paths are layers/layer_0/dense/kernel and so on."""

    def __init__(
        self,
        inputs: int,
        widths: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
        rate: float = 0.5,
        dtype: str = "float32",
    ):
        self.layers = nnx.Dict()
        for index, width in enumerate(widths):
            self.layers[f"layer_{index}"] = Block(inputs, width, rngs=rngs, rate=rate, dtype=dtype)
            inputs = width

    def __call__(
        self,
        *inputs: Float[Array, "B _"],
        train: bool = False,
        key: jax.Array | None = None,
        weight: Float[Array, " B"] | None = None,
    ) -> Float[Array, "B D"]:
        """Applies the network to the concatenation of its inputs.

        Args:
            *inputs: Parts [B, D_i].
            train: Batch statistics and dropout on.
            key: Source of the dropout; needed in training where the rate is above 0.
            weight: Weight of each example in the batch statistics.

        Returns:
            Array [B, last width], float32.
        """
        keys = split_key(key, len(self.layers))
        for index, part in enumerate(keys):
            block = self.layers[f"layer_{index}"]
            inputs = (block(*inputs, train=train, key=part, weight=weight),)
        return inputs[0]
