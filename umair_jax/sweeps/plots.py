"""Pictures of a sweep: quality against cost, by user segment, and where modality weights lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from umair_jax.sweeps.table import Line

# Of Okabe and Ito: told apart by the colour-blind too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
COSTS = {
    "params": "trained parameters",
    "flops": "floating-point operations of one prediction",
    "examples_per_second": "training examples/s",
}


def against_cost(found: Sequence[Line], cost: str, reference: str, path: Path) -> None:
    """AUC over a cost (a field of Line) on a log axis, one dot a row, error bars over seeds."""
    groups = list(dict.fromkeys(line.features for line in found))
    colours = {group: COLOURS[k % len(COLOURS)] for k, group in enumerate(groups)}
    figure, axes = plt.subplots(figsize=(9, max(5.0, 0.24 * len(found))), layout="constrained")
    for group in groups:
        mine = [line for line in found if line.features == group]
        axes.errorbar(
            [getattr(line, cost) for line in mine],
            [line.auc_mean for line in mine],
            yerr=[np.nan_to_num(line.auc_std) for line in mine],
            fmt="o",
            color=colours[group],
            label=group or None,
            capsize=2,
        )
    axes.set_xscale("log")
    axes.margins(x=0.05, y=0.06)
    # Dots crowd where models are alike: names stand in a column, with a line to their dot.
    low, high = axes.get_ylim()
    places = _spread([line.auc_mean for line in found], low, high)
    for line, place in zip(found, places, strict=True):
        axes.annotate(
            line.name,
            (getattr(line, cost), line.auc_mean),
            xytext=(1.03, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=colours[line.features],
            fontweight="bold" if line.name == reference else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": colours[line.features],
                "lw": 0.4,
                "relpos": (0.0, 0.5),
            },
        )
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel("test AUC")
    axes.grid(alpha=0.25)
    if any(groups):
        _legend_above(axes, len(groups))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _spread(values: Sequence[float], low: float, high: float) -> list[float]:
    """Places from low to high in the order of the values, near them, a line of text apart."""
    order = np.argsort(values, kind="stable")
    gap = min((high - low) / max(len(values), 1), 0.035 * (high - low))
    places = np.asarray(values, np.float64)[order]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + gap)
    places -= max(0.0, places[-1] - high) if len(places) else 0.0
    for k in range(len(places) - 2, -1, -1):
        places[k] = min(places[k], places[k + 1] - gap)
    # Pushed down by the top, then up again by the bottom: the gap fits all of them.
    for k in range(len(places)):
        places[k] = max(places[k], low + k * gap)
    found = np.empty(len(places))
    found[order] = places
    return found.tolist()


def _legend_above(axes: Any, columns: int) -> None:
    place: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.01)}
    axes.legend(frameon=False, fontsize=8, ncols=min(columns, 3), **place)


def by_segment(segments: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """AUC of some rows in every segment of the users: segments -> row -> AUC."""
    names = list(segments)
    rows = list(next(iter(segments.values())))
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    width = 0.8 / len(rows)
    for k, row in enumerate(rows):
        place = np.arange(len(names)) + (k - (len(rows) - 1) / 2) * width
        values = [segments[name][row] for name in names]
        axes.bar(place, values, width, label=row, color=COLOURS[k % len(COLOURS)])
    axes.set_xticks(np.arange(len(names)), names)
    values = np.array([list(segment.values()) for segment in segments.values()])
    axes.set_ylim(max(0.0, np.nanmin(values) - 0.03), min(1.0, np.nanmax(values) + 0.01))
    axes.set_ylabel("test AUC")
    axes.grid(axis="y", alpha=0.25)
    _legend_above(axes, len(rows))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def weight_distributions(weights: np.ndarray, names: Sequence[str], path: Path) -> None:
    """How the weights [E, M] of the test examples are distributed, one violin a modality."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    parts = axes.violinplot([weights[:, k] for k in range(len(names))], showmedians=True)
    bodies: Any = parts["bodies"]
    for k, body in enumerate(bodies):
        body.set_facecolor(COLOURS[k % len(COLOURS)])
        body.set_alpha(0.6)
    axes.set_xticks(np.arange(1, len(names) + 1), names)
    axes.set_ylabel("weight")
    axes.set_ylim(0, 1)
    axes.grid(axis="y", alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)
