"""The numbers of a run in HTML: key figures, the table of metrics, facts, counts of the bins."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

from umair_jax.reporting.measured import Calibration
from umair_jax.results import PARTS, SHOWN

WHAT = {
    "auc": "chance that a bookmarked example is ranked above one that is not",
    "log_loss": "cross-entropy of the probabilities, in nats; lower is better",
    "gauc": "AUC within each person",
    "ndcg_at_10": "how far up each person's bookmarks are among the first ten",
    "recall_at_10": "share of each person's bookmarks among the first ten",
    "ece": "distance between predicted and observed shares; lower is better",
}
_NAMES = {"auc": "AUC", "gauc": "GAUC", "ece": "calibration error", "ndcg_at_10": "NDCG at 10"}
_BESIDE = ("constant", "oracle")


def name_of(metric: str) -> str:
    """How a metric is called on the page."""
    return _NAMES.get(metric, metric.replace("_", " "))


def banner(simulated: bool, source: str) -> str:
    """Whose bookmarks these are; nothing on the page can be read without it."""
    if simulated:
        return (
            '<p class="banner simulated"><strong>Simulated bookmarks.</strong> The drawings of '
            f"{html.escape(source)} are real; the people who look at them are made up. Nothing "
            "here says how people behave.</p>"
        )
    return (
        '<p class="banner real"><strong>Bookmarks of real users</strong>, as '
        f"{html.escape(source)} has them. Names are left out; ids are the source's.</p>"
    )


def figures(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: (name, number, what stands below it)."""
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd><b>{html.escape(value)}</b>"
        f"<span>{html.escape(below)}</span></dd></div>"
        for name, value, below in pairs
    )
    return f'<dl class="figures">{cells}</dl>'


def headlines(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The key figures of a summary: AUC and log loss on test, and how near the oracle they are."""
    pairs = []
    for metric in ("auc", "log_loss"):
        value = number(summary["test"].get(metric))
        pairs.append((f"Test {name_of(metric)}", value or "–", _interval(summary["test"], metric)))
    share = summary.get("share_of_oracle", {}).get("auc")
    if share is not None:
        pairs.append(("Way to the oracle", f"{share:.0%}", "of AUC, from the best constant"))
    weights = summary.get("modality_weights") or {}
    if weights:
        top = max(weights, key=weights.__getitem__)
        pairs.append(("Heaviest modality", top, f"{weights[top]:.0%} of the weight on test"))
    return pairs


def table(summary: Mapping[str, Any]) -> str:
    """Validation and test with their 95 % intervals, beside oracle and constant where they are."""
    beside = [name for name in _BESIDE if summary.get(name)]
    shares = summary.get("share_of_oracle") or {}
    headers = "".join(f'<th scope="col">{name}</th>' for name in (*PARTS.values(), *beside))
    rows = []
    for metric in SHOWN:
        cells = [_cell(summary[part], metric, _interval(summary[part], metric))
                 for part in PARTS.values()]  # fmt: skip
        for name in beside:
            share = shares.get(metric) if name == "oracle" else None
            cells.append(
                _cell(summary[name], metric, "" if share is None else f"share {share:.1%}")
            )
        rows.append(
            f'<tr><th scope="row">{name_of(metric)}<small>{WHAT[metric]}</small></th>'
            f"{''.join(cells)}</tr>"
        )
    note = "<p>Small: 95 % intervals by resampling people."
    if "oracle" in beside:
        note += (
            " Oracle: the true probabilities of the test labels, which the simulation knows. "
            "Constant: their mean for all. Share: how far test is on the way from constant to "
            "oracle."
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of metrics">'
        f'<table class="metrics"><thead><tr><th scope="col">metric</th>{headers}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}</p>"
    )


def bins(found: Calibration) -> str:
    """The calibration plot once more, as a table to unfold."""
    rows = "".join(
        f'<tr><th scope="row">{low:.2f} – {high:.2f}</th><td>{count:,}</td>'
        f"<td>{number(predicted, 3)}</td><td>{number(observed, 3)}</td></tr>"
        for low, high, count, predicted, observed in zip(
            found.edges[:-1].tolist(), found.edges[1:].tolist(), found.count.tolist(),
            found.predicted.tolist(), found.observed.tolist(), strict=True,
        )
    )  # fmt: skip
    return (
        "<details open><summary>The bins as a table</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Bins of the calibration plot">'
        '<table class="bins"><thead><tr><th scope="col">probability</th>'
        '<th scope="col">examples</th><th scope="col">predicted</th>'
        f'<th scope="col">observed</th></tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def facts(pairs: Mapping[str, str]) -> str:
    """Names and values of whatever describes the run."""
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in pairs.items()
    )
    return f'<dl class="facts">{cells}</dl>'


def byline(pairs: Mapping[str, str], names: Iterable[str]) -> str:
    """Some of the facts in one line below the title."""
    said = "; ".join(f"{name.lower()} {pairs[name]}" for name in names)
    return f'<p class="byline">{html.escape(said[:1].upper() + said[1:])}</p>'


def number(value: float | int | None, decimals: int = 4) -> str:
    """A number, or nothing where the metric is not defined."""
    known = value is not None and math.isfinite(value)
    return f"{value:.{decimals}f}" if known else ""


def _cell(values: Mapping[str, Any], metric: str, below: str) -> str:
    small = f"<small>{below}</small>" if below else ""
    return f"<td>{number(values.get(metric))}{small}</td>"


def _interval(values: Mapping[str, Any], metric: str) -> str:
    low, high = (number(values.get(metric + end), 3) for end in ("_low", "_high"))
    return f"{low}–{high}" if low and high else ""
