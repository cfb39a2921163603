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
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for colour, group in zip(COLOURS * len(groups), groups, strict=False):
        mine = [line for line in found if line.features == group]
        axes.errorbar(
            [getattr(line, cost) for line in mine],
            [line.auc_mean for line in mine],
            yerr=[np.nan_to_num(line.auc_std) for line in mine],
            fmt="o",
            color=colour,
            label=group or None,
            capsize=2,
        )
    for line, (dx, dy) in zip(found, _offsets(found, cost), strict=True):
        axes.annotate(
            line.name,
            (getattr(line, cost), line.auc_mean),
            xytext=(dx, dy),
            textcoords="offset points",
            fontsize=8,
            fontweight="bold" if line.name == reference else "normal",
        )
    axes.set_xscale("log")
    axes.set_xlabel(COSTS[cost])
    axes.set_ylabel("test AUC")
    axes.margins(x=0.12)
    axes.grid(alpha=0.25)
    if any(groups):
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _offsets(found: Sequence[Line], cost: str) -> list[tuple[int, int]]:
    """Labels of dots that lie close together go up and down in turn."""
    order = sorted(range(len(found)), key=lambda k: found[k].auc_mean)
    places: list[tuple[int, int]] = [(6, 4)] * len(found)
    for turn, k in enumerate(order):
        places[k] = (6, 4) if turn % 2 else (6, -11)
    return places


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
    axes.legend(frameon=False, fontsize=8, ncols=min(len(rows), 4), loc="upper left")
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
