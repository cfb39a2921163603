"""What a run knows besides its arrays: evaluations, the best step, the open window of metrics.

It is saved as JSON with every checkpoint, so that a resumed run reports and decides exactly what
the unbroken run would have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from umair_jax.training.logs import plain


@dataclasses.dataclass
class Ledger:
    """The record that goes with a state.

    Attributes:
        window: metric -> [sum, weight] since the last report.
        train: the last reported training metrics.
        evals: evaluator -> its last metrics.
        evaluated_step: the step of these, -1 before the first.
        best_step: step of the best evaluation, -1 before the first.
        best_value: its value of the metric that decides.
        evals_since_best: evaluations since then.
        spent: time that training took (see ``Progress.spent``).
        stopped_early: the run ended because the metric no longer improved.
    """

    window: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    train: dict[str, Any] = dataclasses.field(default_factory=dict)
    evals: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    evaluated_step: int = -1
    best_step: int = -1
    best_value: float | None = None
    evals_since_best: int = 0
    spent: dict[str, float] = dataclasses.field(default_factory=dict)
    stopped_early: bool = False

    def add(self, step: int, metrics: Mapping[str, tuple[float, float]]) -> None:
        """Adds the (sum, weight) of one update to the window.

        Raises:
            FloatingPointError: a value that is not finite.
        """
        for name, (total, weight) in metrics.items():
            if not (math.isfinite(total) and math.isfinite(weight)):
                raise FloatingPointError(
                    f"training metric {name!r} became {total} in update {step}; nothing was saved "
                    f"since the last checkpoint. Lower the learning rate, clip the gradient "
                    f"(optim.clip_norm), or look at the inputs of batch {step - 1}"
                )
            entry = self.window.setdefault(name, [0.0, 0.0])
            entry[0] += total
            entry[1] += weight

    def close_window(self) -> dict[str, float]:
        """Weighted means since the last report; starts the next window."""
        means = {name: total / weight for name, (total, weight) in self.window.items() if weight}
        self.window = {}
        if means:
            self.train = dict(means)
        return means

    def evaluated(
        self, step: int, evals: Mapping[str, Mapping[str, float]], metric: str, mode: str
    ) -> bool:
        """Records evaluations; True if they are the best so far.

        Args:
            step: updates made before them.
            evals: evaluator -> metric -> value.
            metric: ``evaluator/metric`` that decides, or "" for none.
            mode: ``max`` or ``min``.

        Raises:
            ValueError: no evaluation gives the metric.
        """
        self.evaluated_step = step
        self.evals = {name: {k: plain(v) for k, v in e.items()} for name, e in evals.items()}
        if not metric:
            return False
        flat = {f"{name}/{key}": v for name, e in self.evals.items() for key, v in e.items()}
        if metric not in flat:
            raise ValueError(
                f"checkpoint.best_metric {metric!r} is not evaluated; "
                f"there are: {', '.join(sorted(flat))}"
            )
        value, best = flat[metric], self.best_value
        better = value is not None and (
            best is None or (value > best if mode == "max" else value < best)
        )
        if better:
            self.best_step, self.best_value, self.evals_since_best = step, value, 0
        else:
            self.evals_since_best += 1
        return better

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Ledger:
        """The inverse of :meth:`to_json`."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in record.items() if name in known})
