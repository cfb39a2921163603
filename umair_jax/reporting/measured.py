"""What a run measured, ready to be drawn: curves over the steps, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, Num

from umair_jax.training import logs, metrics

_WEIGHT = "weight_"


@dataclasses.dataclass(frozen=True)
class Curve:
    """A number over the steps.

    Attributes:
        name: What it is called on the page.
        step: Updates, ascending.
        value: The number at each; always finite.
        low: Lower end of the 95 % interval at each; None if the run logged none.
        high: Upper end.
        missing: Logged points without a finite number.
        marked: Whether each point is worth a mark of its own: those of evaluations are.
    """

    name: str
    step: Int64[np.ndarray, " P"]
    value: Float64[np.ndarray, " P"]
    low: Float64[np.ndarray, " P"] | None = None
    high: Float64[np.ndarray, " P"] | None = None
    missing: int = 0
    marked: bool = True


def curve(lines: Iterable[Mapping[str, Any]], kind: str, metric: str, name: str) -> Curve:
    """The points of one number in metrics.jsonl.

    Args:
        lines: As training.logs.read gives them.
        kind: "train", or the name of an evaluator.
        metric: Key of the number.
        name: What it is called on the page.
    """
    logged = [line for line in lines if line.get("kind") == kind and metric in line]
    points = [line for line in logged if line[metric] is not None]
    ends: list[Float64[np.ndarray, " P"] | None] = [None, None]
    keys = (metric + "_low", metric + "_high")
    if points and all(line.get(key) is not None for line in points for key in keys):
        ends = [np.array([line[key] for line in points], np.float64) for key in keys]
    return Curve(
        name=name,
        step=np.array([line["step"] for line in points], np.int64),
        value=np.array([line[metric] for line in points], np.float64),
        low=ends[0],
        high=ends[1],
        missing=len(logged) - len(points),
        marked=kind != logs.TRAIN,
    )


def curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Curve, ...]]:
    """The curves of a ranker.

    Returns:
        "loss" of training beside validation; "auc"; "weights", one curve a modality, none if the
        model has no weights.
    """
    lines = list(lines)
    logged = dict.fromkeys(key for line in lines for key in line if key.startswith(_WEIGHT))
    return {
        "loss": (
            curve(lines, logs.TRAIN, "loss", "training loss"),
            curve(lines, "valid", "log_loss", "validation log loss"),
        ),
        "auc": (curve(lines, "valid", "auc", "validation AUC"),),
        "weights": tuple(curve(lines, "valid", key, key.removeprefix(_WEIGHT)) for key in logged),
    }


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Predicted against observed shares, in bins of equal width.

    Attributes:
        edges: Ends of the bins, from 0 to 1.
        count: Examples in each.
        predicted: Mean probability in each; NaN where there is no example.
        observed: Share of bookmarks in each; likewise.
    """

    edges: Float64[np.ndarray, " B1"]
    count: Int[np.ndarray, " B"]
    predicted: Float64[np.ndarray, " B"]
    observed: Float64[np.ndarray, " B"]

    @property
    def error(self) -> float:
        """Expected calibration error, as training.metrics.ece."""
        there = self.count > 0
        gap = np.abs(self.observed - self.predicted)[there]
        return float(gap @ self.count[there] / self.count.sum())


def calibration(
    label: Num[np.ndarray, " E"], probability: Float[np.ndarray, " E"], bins: int = metrics.BINS
) -> Calibration:
    """Bins examples by their predicted probability, as the calibration error does.

    Args:
        label: 0 or 1.
        probability: In [0, 1].
        bins: How many.

    Raises:
        ValueError: No examples, or not one label for each.
    """
    if not len(label) or len(label) != len(probability):
        raise ValueError(
            f"calibration: got {len(label)} labels and {len(probability)} probabilities; expected "
            "one of each for every example, and at least one example"
        )
    exact = probability.astype(np.float64)
    place = np.minimum((exact * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, values, minlength=bins) for values in (exact, label)]
    predicted, observed = (
        np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums
    )
    return Calibration(np.linspace(0, 1, bins + 1), count, predicted, observed)
