"""A small random search: the same budget, the same values, the validation examples for everyone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from umair_jax.sweeps.config import SearchConfig, flat, has


def settings_of(name: str, config: ConfigDict, search: SearchConfig) -> list[dict[str, Any]]:
    """The settings that a row tries, each once, its own ones (no option) first.

    Args:
        name: The row; its draws do not depend on the other rows.
        config: Its config; options that it does not have are not searched.
        search: Budget, seed and space.

    Returns:
        At most `trials` dicts of dotted options; fewer if the space has no more.
    """
    space = {key: tuple(v) for key, v in flat(search.space).items() if has(config, key)}
    digest = hashlib.sha256(name.encode()).digest()[:8]
    rng = np.random.default_rng([search.seed, int.from_bytes(digest, "little")])
    tried: list[dict[str, Any]] = [{}]
    own = tuple(_value(config, key) for key in space)
    seen = {own}
    outside = any(value not in values for value, values in zip(own, space.values(), strict=True))
    there = math.prod(len(values) for values in space.values()) + outside
    most = min(search.trials, there)
    for _ in range(100 * search.trials):
        if len(tried) >= most:
            break
        drawn = {key: values[rng.integers(len(values))] for key, values in space.items()}
        if tuple(drawn.values()) not in seen:
            seen.add(tuple(drawn.values()))
            tried.append(drawn)
    return tried[: search.trials]


def _value(config: ConfigDict, name: str) -> Any:
    node: Any = config
    for step in name.split("."):
        node = node[step]
    return node


def best(
    trials: list[dict[str, Any]], measure: Callable[[Mapping[str, Any]], float]
) -> dict[str, Any]:
    """Tries every setting; higher is better, the earlier one wins a tie.

    Returns:
        "options" of the winner, its "valid_auc", and "trials", all of them with theirs; null where
        the training did not come to an end.

    Raises:
        ValueError: It did with none of the settings.
    """
    values = [measure(options) for options in trials]
    winner = max(range(len(values)), key=lambda k: (values[k], -k))
    if values[winner] == -math.inf:
        raise ValueError(f"search: got no validation AUC with any of {trials}; try lower rates")
    measured = [
        {"options": options, "valid_auc": value if math.isfinite(value) else None}
        for options, value in zip(trials, values, strict=True)
    ]
    return {**measured[winner], "trials": measured}
