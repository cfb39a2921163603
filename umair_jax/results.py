"""Results of a ranker as summary.json and as a table on the terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8
from rich.console import Console
from rich.table import Table

from umair_jax.training import metrics

SUMMARY = "summary.json"
SHOWN = ("auc", "log_loss", "gauc", "ndcg_at_10", "recall_at_10", "ece")
PARTS = {"valid": "validation", "test": "test"}


def oracle(
    label: Int8[np.ndarray, " E"], probability: Float32[np.ndarray, " E"]
) -> dict[str, float]:
    """What the true probabilities of simulated labels reach: nothing can be better on average."""
    return {
        "auc": metrics.auc(label, probability),
        "log_loss": metrics.log_loss(label, probability.astype(np.float64)),
    }


def best_constant(label: Int8[np.ndarray, " E"]) -> dict[str, float]:
    """What one probability for everything reaches, were it the true share of bookmarks."""
    share = float(label.mean())
    return {"auc": 0.5, "log_loss": metrics.log_loss(label, np.full(len(label), share))}


def shares(
    measured: Mapping[str, Any], constant: Mapping[str, float], ceiling: Mapping[str, float]
) -> dict[str, float]:
    """How far along the way from the best constant to the oracle, by metric; 1 = all of it."""
    return {
        name: (measured[name] - constant[name]) / (ceiling[name] - constant[name])
        for name in ("auc", "log_loss")
    }


def read(workdir: Path) -> dict[str, Any]:
    """The summary of a working directory; empty where there is none."""
    path = Path(workdir) / SUMMARY
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write(workdir: Path, summary: Mapping[str, Any]) -> None:
    """Writes summary.json, all or nothing; numbers that are not finite become null."""
    text = json.dumps(_finite(summary), indent=2, ensure_ascii=False)
    write_text(Path(workdir) / SUMMARY, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file, all or nothing, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Prints a ranker's metrics with their intervals beside the oracle and the best constant."""
    simulated = " (simulated bookmarks)" if summary.get("simulated") else ""
    title = f"{summary['source']}{simulated}, ± half a 95 % interval"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    beside = {"oracle": "oracle", "constant": "constant", "share_of_oracle": "share"}
    beside = {key: header for key, header in beside.items() if summary.get(key)}
    for header in (*PARTS.values(), *beside.values()):
        table.add_column(header, justify="right")
    for metric in SHOWN:
        cells = [with_half_width(summary[part], metric) for part in PARTS.values()]
        for key in beside:
            value = summary[key].get(metric)
            form = "{:.1%}" if key == "share_of_oracle" else "{:.4f}"
            cells.append("" if value is None else form.format(value))
        table.add_row(metric.replace("_", " "), *cells)
    console.print(table)
    if "share_of_oracle" in beside:
        console.print(
            "oracle: the true probabilities of the test labels. constant: their mean for all.\n"
            "share: how far test is on the way from constant to oracle."
        )
    if summary["modality_weights"]:
        weights = "  ".join(f"{k} {v:.3f}" for k, v in summary["modality_weights"].items())
        console.print(f"Mean modality weights on test: {weights}")


def with_half_width(values: Mapping[str, Any], metric: str) -> str:
    """A metric as text, with half its interval if there is one; empty where it is not defined."""
    value, low, high = (values.get(metric + end) for end in ("", "_low", "_high"))
    if value is None or not np.isfinite(value):
        return ""  # not defined on these examples
    return f"{value:.4f}" if low is None else f"{value:.4f} ± {(high - low) / 2:.3f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
