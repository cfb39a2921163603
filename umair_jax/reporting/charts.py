"""The charts of the page: curves over the steps, calibration with counts."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from umair_jax.reporting import axes
from umair_jax.reporting.axes import LEFT, RIGHT, WIDTH, Axes
from umair_jax.reporting.measured import Calibration, Curve

_PADDING = 0.06


def over_steps(
    curves: Sequence[tuple[str, Curve]], chosen: int | None, title: str, y_label: str, name: str
) -> str:
    """Curves over the steps in one picture, with a legend.

    Points of evaluations are marked, with their intervals if there are any; those of training,
    which are many, are joined only.

    Args:
        curves: With the class of the style sheet that gives each its colour.
        chosen: Step of the checkpoint that the page is about, marked; None = none.
        title: What the chart shows.
        y_label: What the numbers are.
        name: Prefix of its ids, unique in the page.

    Returns:
        A figure, or a sentence if nothing was logged.
    """
    shown = [(kind, c) for kind, c in curves if len(c.step)]
    head = f"<figcaption><strong>{html.escape(title)}</strong></figcaption>"
    if not shown:
        return f'<figure class="panel">{head}<p>No points were logged.</p></figure>'
    values = [v for _, c in shown for v in (c.value, c.low, c.high) if v is not None]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    room = (high - low or abs(high) or 1.0) * _PADDING
    last = max(int(c.step[-1]) for _, c in shown)
    plot = Axes((0.0, float(max(last, 1))), (low - room, high + room), "updates", y_label)
    if chosen is not None and 0 <= chosen <= last:
        foot, top = plot.at(chosen, plot.y[0]), plot.at(chosen, plot.y[1])
        plot.add(
            f'<line class="chosen" x1="{foot[0]}" x2="{top[0]}" y1="{foot[1]}" y2="{top[1]}"/>'
        )
    for kind, curve in shown:
        _draw(plot, curve, kind)
    said = "; ".join(_in_words(curve) for _, curve in shown)
    legend = "".join(
        f'<li><i class="key {kind}"></i>{html.escape(c.name)}</li>' for kind, c in shown
    )
    missing = sum(curve.missing for _, curve in shown)
    note = f"<p>{missing:,} logged points are not finite and left out.</p>" if missing else ""
    return (
        f'<figure class="panel">{head}<ul class="legend">{legend}</ul>'
        f"{plot.svg(title, said, name)}{note}</figure>"
    )


def _draw(plot: Axes, curve: Curve, kind: str) -> None:
    points = list(zip(curve.step.tolist(), curve.value.tolist(), strict=True))
    plot.line(points, kind)
    for k, (step, value) in enumerate(points if curve.marked or len(points) == 1 else ()):
        said = f"{curve.name}, update {step:,}: {value:.4f}"
        if curve.low is not None and curve.high is not None:
            x, top = plot.at(step, float(curve.high[k]))
            _, foot = plot.at(step, float(curve.low[k]))
            plot.add(f'<line class="whisker {kind}" x1="{x}" x2="{x}" y1="{top}" y2="{foot}"/>')
            said += f" ({curve.low[k]:.4f} to {curve.high[k]:.4f})"
        plot.dot(step, value, kind, said)


def _in_words(curve: Curve) -> str:
    first, last = curve.value[0], curve.value[-1]
    return (
        f"{curve.name}: {len(curve.step)} points, {first:.4f} at update {curve.step[0]:,}, "
        f"{last:.4f} at update {curve.step[-1]:,}"
    )


def calibration(bins: Calibration, name: str) -> str:
    """Observed share over predicted probability, and how many examples each bin has.

    Args:
        bins: What was counted.
        name: Prefix of its ids, unique in the page.
    """
    there = np.flatnonzero(bins.count)
    strip, gap = 54, 20  # pixels of the counts below the plot
    plot = Axes((0.0, 1.0), (0.0, 1.0), "predicted probability", "observed share",
                height=300 + gap + strip, bottom=axes.BOTTOM + gap + strip)  # fmt: skip
    plot.line([(0.0, 0.0), (1.0, 1.0)], "ideal")
    plot.line([(float(bins.predicted[k]), float(bins.observed[k])) for k in there], "first")
    for k in there:
        x, y = float(bins.predicted[k]), float(bins.observed[k])
        plot.dot(x, y, "first", _bin_in_words(bins, int(k)))
    foot = plot.height - 2.0
    most = int(bins.count.max())
    for k in there:
        left, _ = plot.at(float(bins.edges[k]), 0.0)
        right, _ = plot.at(float(bins.edges[k + 1]), 0.0)
        tall = max(1.0, strip * bins.count[k] / most)
        plot.add(
            f'<rect class="count" x="{left + 1:.2f}" y="{foot - tall:.2f}" '
            f'width="{right - left - 2:.2f}" height="{tall:.2f}">'
            f"<title>{_bin_in_words(bins, int(k))}</title></rect>"
        )
    plot.add(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{foot}" y2="{foot}"/>')
    for y, said in ((foot - strip + 9, f"{most:,}"), (foot, "0")):
        plot.add(f'<text class="tick" x="{LEFT - 6}" y="{y}" text-anchor="end">{said}</text>')
    title = "Calibration on test"
    said = f"Expected calibration error {bins.error:.4f}. " + "; ".join(
        _bin_in_words(bins, int(k)) for k in there
    )
    return (
        f'<figure class="panel"><figcaption><strong>{title}</strong></figcaption>'
        '<ul class="legend"><li><i class="key first"></i>the model</li>'
        '<li><i class="key ideal"></i>ideal</li>'
        '<li><i class="key count"></i>examples in the bin</li></ul>'
        f"{plot.svg(title, said, name)}</figure>"
    )


def _bin_in_words(bins: Calibration, k: int) -> str:
    return (
        f"predicted {bins.predicted[k]:.3f}, observed {bins.observed[k]:.3f}, "
        f"{bins.count[k]:,} examples"
    )
