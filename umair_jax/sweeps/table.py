"""Runs of a sweep as one line a row: means over seeds, p-values, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from umair_jax.sweeps.config import SweepConfig
from umair_jax.sweeps.runs import Run
from umair_jax.sweeps.statistics import draws_of, p_value

CSV_COLUMNS = (
    "name",
    "features",
    "seeds",
    "auc_mean",
    "auc_std",
    "log_loss_mean",
    "log_loss_std",
    "p_value",
    "params",
    "examples_per_second",
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A row's results on the test examples.

    Attributes:
        name: Its label.
        features: What it sees.
        seeds: Runs behind the means.
        auc_mean: Mean AUC over the seeds.
        auc_std: Standard deviation (n - 1); NaN for one seed.
        log_loss_mean: The same of the log loss, in nats.
        log_loss_std: See above.
        auc_gain: How much better the reference's AUC is, as a share of this row's.
        log_loss_gain: How much lower the reference's log loss is, as a share of this row's.
        p_value: Of "no difference in AUC from the reference", see statistics.py; None = it.
        p_log_loss: The same for the log loss.
        params: Trained values, tables included.
        flops: Floating-point operations of one prediction.
        examples_per_second: Training speed, median of the seeds.
    """

    name: str
    features: str
    seeds: int
    auc_mean: float
    auc_std: float
    log_loss_mean: float
    log_loss_std: float
    auc_gain: float
    log_loss_gain: float
    p_value: float | None
    p_log_loss: float | None
    params: int
    flops: float
    examples_per_second: float


def lines(sweep: SweepConfig, runs: Mapping[str, Sequence[Run]]) -> list[Line]:
    """One line for every row that has all its runs, in the order of the sweep.

    Raises:
        ValueError: The reference is not among them, or a row has other test examples than it.
    """
    if sweep.reference not in runs:
        raise ValueError(f"sweep: got no runs of the reference {sweep.reference!r}; train it first")
    reference = [run.predictions() for run in runs[sweep.reference]]
    examples = {name: reference[0][name] for name in ("label", "user", "item")}
    base = _draws(examples, reference, sweep.draws)
    means = {metric: _mean(runs[sweep.reference], metric) for metric in ("auc", "log_loss")}
    found = []
    for name, row in sweep.rows.items():
        if name not in runs:
            continue
        mine, p_auc, p_loss = runs[name], None, None
        if name != sweep.reference:
            predicted = [run.predictions() for run in mine]
            for given in predicted:
                if any(not np.array_equal(given[key], examples[key]) for key in examples):
                    raise ValueError(
                        f"sweep: row {name!r} was tested on other examples than "
                        f"{sweep.reference!r}; give both the same data and split"
                    )
            draws = _draws(examples, predicted, sweep.draws)
            p_auc, p_loss = (p_value(base[key] - draws[key]) for key in ("auc", "log_loss"))
        auc, loss = _mean(mine, "auc"), _mean(mine, "log_loss")
        found.append(
            Line(
                name=row.label or name,
                features=row.features,
                seeds=len(mine),
                auc_mean=auc,
                auc_std=_deviation(mine, "auc"),
                log_loss_mean=loss,
                log_loss_std=_deviation(mine, "log_loss"),
                auc_gain=(means["auc"] - auc) / auc,
                log_loss_gain=(loss - means["log_loss"]) / loss,
                p_value=p_auc,
                p_log_loss=p_loss,
                params=int(mine[0].summary["params"]),
                flops=float(mine[0].summary["flops_per_example"]),
                examples_per_second=float(
                    np.median([run.summary["examples_per_second"] for run in mine])
                ),
            )
        )
    return found


def _draws(examples, predicted, draws: int) -> dict[str, np.ndarray]:
    each = [given["probability"] for given in predicted]
    return draws_of(examples["label"], examples["user"], each, draws)


def _mean(runs: Sequence[Run], metric: str) -> float:
    return float(np.mean([run.summary["test"][metric] for run in runs]))


def _deviation(runs: Sequence[Run], metric: str) -> float:
    values = [run.summary["test"][metric] for run in runs]
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def as_csv(found: Sequence[Line]) -> str:
    """Comma-separated values with full precision; what does not apply is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in found:
        values = [getattr(line, column) for column in CSV_COLUMNS]
        writer.writerow(["" if v is None or v != v else v for v in values])
    return out.getvalue()


HEADERS = (
    "model",
    "features",
    "AUC",
    "log loss",
    "AUC, reference better by",
    "log loss, by",
    "p (AUC)",
    "p (log loss)",
    "parameters",
    "MFLOP",
    "examples/s",
)


def _cells(line: Line) -> list[str]:
    def with_deviation(mean: float, deviation: float) -> str:
        return f"{mean:.4f}" if math.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"

    def p(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}" if value >= 0.0095 else f"{value:.1g}"

    mine = line.p_value is None
    return [
        line.name,
        line.features,
        with_deviation(line.auc_mean, line.auc_std),
        with_deviation(line.log_loss_mean, line.log_loss_std),
        "" if mine else f"{line.auc_gain:+.2%}",
        "" if mine else f"{line.log_loss_gain:+.2%}",
        p(line.p_value),
        p(line.p_log_loss),
        f"{line.params:,}",
        f"{line.flops / 1e6:.2f}",
        f"{line.examples_per_second:,.0f}",
    ]


def as_markdown(sweep: SweepConfig, found: Sequence[Line], simulated: bool) -> str:
    """A heading, how to read the table, and the table."""
    users = "simulated bookmarks" if simulated else "real users"
    rows = [HEADERS, ["---"] * 2 + ["---:"] * (len(HEADERS) - 2), *map(_cells, found)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    seeds = ", ".join(map(str, sweep.seeds))
    return (
        f"# {sweep.title}\n\n"
        f"{users.capitalize()}; test examples; mean ± standard deviation over the seeds {seeds}. "
        f"p: two-sided, paired bootstrap over users ({sweep.draws:,} draws) against "
        f"{_label(sweep)}. MFLOP: of one prediction, look-ups free. examples/s: of training, on "
        "the machine of this run.\n\n"
        f"{table}\n"
    )


def _label(sweep: SweepConfig) -> str:
    return sweep.rows[sweep.reference].label or sweep.reference


_ESCAPES = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "±": r"$\pm$"}


def as_latex(sweep: SweepConfig, found: Sequence[Line]) -> str:
    r"""A tabular for \input{}; needs the package booktabs."""

    def escaped(text: str) -> str:
        return "".join(_ESCAPES.get(letter, letter) for letter in text)

    body = [HEADERS, *map(_cells, found)]
    head, *rest = [" & ".join(map(escaped, row)) + r" \\" for row in body]
    return "\n".join(
        [
            f"% {sweep.title}",
            r"\begin{tabular}{ll" + "r" * (len(HEADERS) - 2) + "}",
            r"\toprule",
            head,
            r"\midrule",
            *rest,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def for_terminal(sweep: SweepConfig, found: Sequence[Line]) -> Table:
    """The columns that fit on a terminal; table.md has them all."""
    table = Table(title=sweep.title, title_justify="left")
    shown = [HEADERS.index(h) for h in ("model", "features", "AUC", "log loss", "p (AUC)")]
    for k in shown:
        table.add_column(HEADERS[k], justify="left" if k < 2 else "right", no_wrap=k > 1)
    for line in found:
        cells = _cells(line)
        table.add_row(*(cells[k] for k in shown))
    return table
