"""Optimisers of the network (everything but the embedding tables), from a small config.

The state of an optax optimiser is turned into plain nested dictionaries, with a name for every
stage, so that the paths in a checkpoint do not depend on optax's classes nor on how many stages
there are.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from umair_jax.training.sharding import Tree, path_of

NAMES = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")

Schedule = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """How the network learns.

    Attributes:
        name: ``adam``, ``adamw`` or ``sgd``.
        learning_rate: the peak rate.
        schedule: after the warm-up ``constant``, or ``cosine`` / ``linear`` down to
            ``final_fraction`` of the peak at the last step of the run.
        warmup_fraction: share of the run's steps that the rate rises linearly from 0, in [0, 1].
        final_fraction: where cosine and linear end, as a share of the peak.
        weight_decay: for ``adamw`` taken off the weights (times the rate); for ``adam`` and
            ``sgd`` added to the gradient, which is an L2 penalty of ``weight_decay / 2 * ||w||^2``.
        decay_mask: regular expression; paths of the network that it matches decay. Paths look like
            ``cross/layers/0/kernel``.
        clip_norm: largest norm of the network's gradient (tables not counted); 0 does not clip.
        b1: decay of Adam's first moment.
        b2: decay of Adam's second moment.
        eps: added to Adam's denominator.
        momentum: of ``sgd``; 0 is plain.
        ema_decay: share that the average of the network's weights (and BatchNorm statistics) keeps
            at each update; evaluation and export then use the average. 0 keeps no average.
        rates: (regular expression, factor) pairs for the paths of the network; the first that
            matches multiplies the learning rate, and with it the decay, of that parameter. Factor
            0 leaves it as it is, bit for bit, and out of ``clip_norm``. What none matches has 1.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_fraction: float = 0.0
    final_fraction: float = 0.0
    weight_decay: float = 0.0
    decay_mask: str = r"^(?!.*(bias|scale)).*$"
    clip_norm: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-7
    momentum: float = 0.0
    ema_decay: float = 0.0
    rates: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Checks names, ranges and the regular expressions."""
        _one_of("optimiser", self.name, NAMES)
        _one_of("schedule", self.schedule, SCHEDULES)
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction must lie in [0, 1], got {self.warmup_fraction}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        for field in ("weight_decay", "clip_norm", "final_fraction", "momentum"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be 0 or more, got {getattr(self, field)}")
        _check_expression("decay_mask", self.decay_mask)
        for expression, factor in self.rates:
            _check_expression("rates", expression)
            if factor < 0:
                raise ValueError(f"rates: got {factor} for {expression!r}; expected 0 or more")


def schedule_factor(config: OptimConfig, total_steps: int) -> Schedule:
    """Step (updates made so far) -> share of the peak rate, in [0, 1]."""
    warmup = round(config.warmup_fraction * total_steps)
    rest = max(total_steps - warmup, 1)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(1.0, rest, alpha=config.final_fraction)
    elif config.schedule == "linear":
        after = optax.linear_schedule(1.0, config.final_fraction, rest)
    else:
        after = optax.constant_schedule(1.0)
    if not warmup:
        return after
    # The first update already moves: step 0 has 1/warmup of the peak.
    start = 1.0 / warmup
    rise = optax.linear_schedule(start, 1.0, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """An optax chain behind plain dictionaries.

    Attributes:
        transform: the optax transformation.
        factor: schedule as a share of the peak rate, also followed by the tables.
        learning_rate: the peak rate.
        ema_decay: of the average of the weights; 0 = none.
        rates: (regular expression, factor of the rate) pairs, see OptimConfig.
    """

    transform: optax.GradientTransformation
    factor: Schedule
    learning_rate: float
    ema_decay: float = 0.0
    rates: tuple[tuple[str, float], ...] = ()

    def init(self, params: Tree) -> dict[str, Any]:
        """State for these parameters: nested dictionaries of arrays.

        Raises:
            ValueError: an expression of ``rates`` matches no parameter.
        """
        paths = [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
        for expression, _ in self.rates:
            if not any(re.search(expression, path) for path in paths):
                raise ValueError(
                    f"optim.rates: got {expression!r}, which matches no parameter; expected an "
                    f"expression for paths such as {paths[0]!r}"
                )
        return to_plain(self.transform.init(params))

    def update(
        self, gradients: Tree, state: dict[str, Any], params: Tree, step: Int[Array, ""]
    ) -> tuple[Tree, dict[str, Any]]:
        """Parameters and state after one step; ``step`` counts the updates made before it."""
        like = jax.eval_shape(self.transform.init, params)
        factors = jax.tree_util.tree_map_with_path(lambda keys, _: self._factor(keys), params)
        gradients = jax.tree.map(lambda g, f: g if f else jnp.zeros_like(g), gradients, factors)
        changes, new = self.transform.update(gradients, from_plain(state, like), params)
        rate = -self.rate(step)
        moved = jax.tree.map(lambda p, c, f: p + rate * f * c if f else p, params, changes, factors)
        return moved, to_plain(new)

    def _factor(self, keys: Any) -> float:
        path = path_of(keys)
        return next((f for expression, f in self.rates if re.search(expression, path)), 1.0)

    def average(self, old: Tree, new: Tree, step: Int[Array, ""]) -> Tree:
        """The moving average after one more update.

        It keeps at most (1 + step) / (10 + step), so that the initial weights are soon forgotten.

        Args:
            old: the average, by kind: the network's weights, its statistics.
            new: the same after the update.
            step: updates made before it.
        """
        keep = jnp.minimum(self.ema_decay, (1 + step) / (10 + step))

        def mean(keys: Any, a: Any, b: Any) -> Any:
            # What does not move shall not be rounded either; the first key is the kind.
            return keep * a + (1 - keep) * b if self._factor(keys[1:]) else b

        return jax.tree_util.tree_map_with_path(mean, old, new)

    def rate(self, step: Int[Array, ""] | int) -> Float[Array, ""] | float:
        """Learning rate of the update that follows ``step`` earlier ones."""
        return self.learning_rate * self.factor(step)


def make_optimiser(config: OptimConfig, total_steps: int) -> Optimiser:
    """The optimiser that a config describes.

    Args:
        config: what to build.
        total_steps: length of the whole run, for the schedule.
    """
    stages: list[tuple[str, optax.GradientTransformation]] = []
    if config.clip_norm:
        stages.append(("clip", optax.clip_by_global_norm(config.clip_norm)))

    def decays(params: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda keys, _: bool(re.search(config.decay_mask, path_of(keys))), params
        )

    decay = ("decay", optax.add_decayed_weights(config.weight_decay, mask=decays))
    if config.weight_decay and config.name != "adamw":
        stages.append(decay)
    if config.name in ("adam", "adamw"):
        stages.append(("adam", optax.scale_by_adam(config.b1, config.b2, config.eps)))
    elif config.momentum:
        stages.append(("momentum", optax.trace(config.momentum)))
    if config.weight_decay and config.name == "adamw":
        stages.append(decay)
    transform = optax.named_chain(*stages) if stages else optax.identity()
    return Optimiser(
        transform,
        schedule_factor(config, total_steps),
        config.learning_rate,
        config.ema_decay,
        config.rates,
    )


def to_plain(state: Any) -> Any:
    """An optax state as nested dictionaries: fields by name, places of tuples as digits.

    What holds no arrays is left out.
    """
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, tuple):
        names = getattr(state, "_fields", None) or [str(i) for i in range(len(state))]
        items = zip(names, state, strict=True)
    else:
        return state
    plain = {name: to_plain(value) for name, value in items}
    return {name: value for name, value in plain.items() if not _is_empty(value)}


def from_plain(plain: Any, like: Any) -> Any:
    """The inverse of :func:`to_plain`; ``like`` has the structure to fill."""
    if isinstance(like, dict):
        filled = {name: from_plain(plain.get(name, {}), value) for name, value in like.items()}
        return type(like)(filled)  # optax's named chains are ordered dictionaries
    if isinstance(like, tuple):
        fields = getattr(like, "_fields", None)
        names = fields or [str(i) for i in range(len(like))]
        values = [
            from_plain(plain.get(name, {}), value) for name, value in zip(names, like, strict=True)
        ]
        return type(like)(*values) if fields is not None else tuple(values)
    return plain


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)


def _check_expression(what: str, expression: str) -> None:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{what} {expression!r} is no regular expression: {error}") from error


def _one_of(what: str, name: str, allowed: tuple[str, ...]) -> None:
    if name not in allowed:
        raise ValueError(f"unknown {what} {name!r}; allowed: {', '.join(sorted(allowed))}")
