"""Predictions for every example exactly once, whatever the number of devices and hosts."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.data.batches import BatchSource
from umair_jax.training.sharding import BatchPlacer
from umair_jax.training.state import State, judged
from umair_jax.training.table_optimisers import gather_rows

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Examples and what to compute from the predictions for them.

    Attributes:
        source: the examples; served in order.
        metrics: predictions {name: [E, ...]}, in the order of the examples -> metrics. Labels and
            users come from ``source.column(...)``.
        final_only: evaluate at the end only, on the state that the run ends with (test sets).
    """

    source: BatchSource
    metrics: Callable[[Arrays], dict[str, float]]
    final_only: bool = False


@runtime_checkable
class RefreshesContext(Protocol):
    """A task some of whose context follows from what is trained, such as items' vectors."""

    def refreshed(
        self,
        params: Any,
        stats: Any,
        context: Mapping[str, Any],
        mesh: Mesh,
        stop: Callable[[], bool],
    ) -> Mapping[str, jax.Array] | None:
        """The arrays of the context that these parameters change, placed as they are in it.

        Asked once for a state, before any of its predictions. None if ``stop`` says True.
        """
        ...


class Predictor:
    """Runs a task's ``predict`` over all examples of a source; compiles once a batch shape."""

    def __init__(self, task: Any, mesh: Mesh) -> None:
        """Prepares the jitted function; ``task`` is a ``loop.Task``."""
        self.mesh, self._task = mesh, task
        self._refreshed: tuple[Any, Mapping[str, jax.Array]] | None = None

        def predict(params: Any, stats: Any, context: Any, batch: Any) -> Any:
            rows = task.table_rows(context, batch)
            looked_up = {
                name: gather_rows(params["tables"][name], r, mesh) for name, r in rows.items()
            }
            return task.predict(params["net"], looked_up, stats, context, batch)

        # Replicated results: every host can read them, and they are one value an example.
        self._predict = jax.jit(predict, out_shardings=NamedSharding(mesh, P()))

    def __call__(
        self,
        state: State,
        context: Mapping[str, jax.Array | np.ndarray],
        source: BatchSource,
        stop: Callable[[], bool] = lambda: False,
    ) -> Arrays | None:
        """Predictions for the source's E examples.

        Args:
            state: training state; only what ``state.judged`` takes of it is read.
            context: the task's arrays, on the mesh; those of the host are put there each time.
            source: examples; its batch size must divide over the data axis.
            stop: asked between batches; True gives up.

        Returns:
            Name -> array [E, ...] in the order of the examples; None if told to stop.
        """
        params, stats = judged(state)
        current = self.current(state, context, stop)
        if current is None:
            return None
        place = BatchPlacer(self.mesh, source.batch_size)
        pending: deque[Any] = deque()
        parts: list[Arrays] = []
        for batch in source.padded_batches(place.rows):
            if stop():
                return None
            pending.append(self._predict(params, stats, current, place(batch)))
            # Read a batch while the next one is computed.
            if len(pending) > 1:
                parts.append(jax.device_get(pending.popleft()))
        parts.extend(jax.device_get(left) for left in pending)
        return {
            name: np.concatenate([part[name] for part in parts])[: len(source)] for name in parts[0]
        }

    def current(
        self,
        state: State,
        context: Mapping[str, jax.Array | np.ndarray],
        stop: Callable[[], bool] = lambda: False,
    ) -> Mapping[str, jax.Array | np.ndarray] | None:
        """The context with what follows from a state, see RefreshesContext.

        Args:
            state: training state, as in a call.
            context: the task's arrays.
            stop: asked now and then; True gives up.

        Returns:
            The same arrays, the refreshed ones replaced; None if told to stop.
        """
        if not isinstance(self._task, RefreshesContext):
            return context
        # A state is known by its step's array: every update makes another one.
        if self._refreshed is None or self._refreshed[0] is not state["step"]:
            self._refreshed = None
            found = self._task.refreshed(*judged(state), context, self.mesh, stop)
            if found is None:
                return None
            self._refreshed = state["step"], found
        return {**context, **self._refreshed[1]}
