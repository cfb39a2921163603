"""One update, as a pure function for ``jax.jit``: look up rows, differentiate, update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from umair_jax.training.optimisers import Optimiser
from umair_jax.training.state import State, TableConfigs, shardings_of
from umair_jax.training.table_optimisers import gather_rows, table_config, update_table


class TrainStep:
    """The jitted update; the given state is donated.

    Besides the task's metrics it reports ``loss`` (unless the task does) and ``grad_norm``, the
    norm of the gradient of the network and of the looked-up rows: where that is not finite, the
    new state is not either.
    """

    def __init__(
        self,
        task: Any,
        optimiser: Optimiser,
        tables: TableConfigs,
        mesh: Mesh,
        seed: int,
        abstract: State,
    ) -> None:
        """Builds the function; nothing is compiled yet.

        Args:
            task: a ``loop.Task``.
            optimiser: of the network.
            tables: optimisers of the tables.
            mesh: where everything lives.
            seed: of the dropout keys; update s uses key fold_in(seed, s).
            abstract: shapes and shardings of the state.
        """
        self._names: list[str] = []

        def update(state: State, context: Any, batch: Any) -> tuple[State, jax.Array]:
            step, params = state["step"], state["params"]
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), step)
            rows = task.table_rows(context, batch)
            looked_up = {
                name: gather_rows(params["tables"][name], r, mesh) for name, r in rows.items()
            }

            def objective(net: Any, looked_up: Any) -> Any:
                return task.loss(net, looked_up, state["stats"], context, batch, key)

            (loss, (stats, metrics)), (net_gradient, row_gradients) = jax.value_and_grad(
                objective, argnums=(0, 1), has_aux=True
            )(params["net"], looked_up)
            net, net_state = optimiser.update(
                net_gradient, state["opt"]["net"], params["net"], step
            )
            new_tables, table_states = dict(params["tables"]), dict(state["opt"]["tables"])
            factor = optimiser.factor(step)
            for name in rows:
                config = table_config(tables, name)
                new_tables[name], table_states[name] = update_table(
                    params["tables"][name],
                    state["opt"]["tables"][name],
                    rows[name],
                    row_gradients[name],
                    config.learning_rate * factor,
                    step,
                    config,
                    mesh,
                )
            norm = optax.tree.norm((net_gradient, row_gradients))
            metrics = {"loss": (loss, 1.0), **metrics, "grad_norm": (norm, 1.0)}
            # All metrics in one array: one transfer a step. The names are known once traced.
            self._names = sorted(metrics)
            packed = [jnp.stack([jnp.float32(part) for part in metrics[n]]) for n in self._names]
            state = {
                "step": step + 1,
                "params": {"net": net, "tables": new_tables},
                "stats": stats,
                "opt": {"net": net_state, "tables": table_states},
            }
            return state, jnp.stack(packed)

        self._update = jax.jit(
            update,
            donate_argnums=0,
            out_shardings=(shardings_of(abstract), NamedSharding(mesh, P())),
        )

    def __call__(
        self, state: State, context: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> tuple[State, jax.Array]:
        """Dispatches one update; does not wait for it.

        Returns:
            The new state and the packed metrics, for :meth:`unpack`.
        """
        return self._update(state, context, batch)

    def unpack(self, packed: jax.Array) -> dict[str, tuple[float, float]]:
        """Metric -> (sum, weight) on the host; waits for the update."""
        values = np.asarray(jax.device_get(packed), np.float64)
        return {
            name: (float(total), float(weight))
            for name, (total, weight) in zip(self._names, values, strict=True)
        }

    def lower(self, state: Any, context: Any, batch: Any) -> Any:
        """The lowered update (``jax.stages.Lowered``), to count its operations."""
        return self._update.lower(state, context, batch)
