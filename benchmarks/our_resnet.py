"""What the ResNet's benchmark measures of ours: calls of the encoder, and a train step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from umair_jax.models.folding import FoldedImageEncoder
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig, semantic_content
from umair_jax.models.initialise import HostDraws
from umair_jax.models.layers import Dense
from umair_jax.models.losses import MultiLabelConfig, multi_label


class Work(NamedTuple):
    """A compiled piece of work.

    Attributes:
        dispatch: Begins it.
        memory_bytes: Arguments, results and everything in between; None where XLA does not say.
        flops: Of what was asked for, before XLA or Winograd's algorithm save any.
    """

    dispatch: Callable[[], object]
    memory_bytes: int | None
    flops: float


def content(encoder: ImageEncoder, images: jax.Array) -> jax.Array:
    """Pooled features alone."""
    if isinstance(encoder, FoldedImageEncoder):
        return encoder(images).content  # XLA leaves out what is not returned
    return semantic_content(encoder.maps(images)[-1][-1])


def both(encoder: ImageEncoder, images: jax.Array) -> Any:
    """Content and style."""
    return encoder(images)


def compiled(encoder: ImageEncoder, call: Callable, images: np.ndarray) -> Work:
    """A call of the encoder on images that are on the device.

    Args:
        encoder: Folded or not.
        call: `content` or `both`.
        images: float32 [B, H, W, 3].
    """
    graph, params, stats = nnx.split(encoder, nnx.Param, nnx.BatchStat)
    weights = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    batch = jax.device_put(images)
    function = jax.jit(lambda weights, x: call(nnx.merge(graph, *weights), x))
    lowered = function.lower(weights, batch)
    program = lowered.compile()
    return Work(lambda: program(weights, batch), _memory(program), _flops(lowered))


def train_step(cfg: ImageEncoderConfig, images: np.ndarray, labels: np.ndarray) -> Work:
    """One step of SGD with momentum on the sum over tags of the binary cross-entropy."""
    encoder = ImageEncoder(cfg, rngs=HostDraws(0))
    head = Dense(cfg.content_width, labels.shape[1], rngs=nnx.Rngs(0))
    graph, params, stats = nnx.split((encoder, head), nnx.Param, nnx.BatchStat)
    optimiser = optax.sgd(1e-3, momentum=0.9)
    loss_config = MultiLabelConfig()

    def step(state: Any, x: jax.Array, label: jax.Array) -> tuple[Any, jax.Array]:
        params, stats, opt = state

        def objective(params: Any) -> tuple[jax.Array, Any]:
            encoder, head = model = nnx.merge(graph, params, stats)
            features = semantic_content(encoder.maps(x, train=True)[-1][-1])
            loss = multi_label(head(features), label, loss_config).mean()
            return loss, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        (loss, stats), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        changes, opt = optimiser.update(gradient, opt, params)
        return (optax.apply_updates(params, changes), stats, opt), loss

    params, stats = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
    state = [(params, stats, optimiser.init(params))]
    batch, label = jax.device_put((images, labels))
    lowered = jax.jit(step, donate_argnums=0).lower(state[0], batch, label)
    program = lowered.compile()

    def run() -> object:
        state[0], loss = program(state[0], batch, label)
        return loss, state[0]

    return Work(run, _memory(program), _flops(lowered))


def _flops(lowered: Any) -> float:
    cost = lowered.cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost)["flops"])


def _memory(program: Any) -> int | None:
    found = program.memory_analysis()
    if found is None:
        return None
    whole = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return whole - found.alias_size_in_bytes
