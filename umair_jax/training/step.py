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
from umair_jax.training.state import State, TableConfigs, seed_key, shardings_of
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
        micro_batches: int = 1,
    ) -> None:
        """Builds the function; nothing is compiled yet.

        Args:
            task: a ``loop.Task``.
            optimiser: of the network.
            tables: optimisers of the tables.
            mesh: where everything lives.
            seed: of the dropout keys; update s uses key fold_in(seed, s).
            abstract: shapes and shardings of the state.
            micro_batches: parts of the batch whose gradients are taken one after another and
                averaged. Statistics of BatchNorm then are those of a part; every device works on
                each part.
        """
        self._names: list[str] = []

        self._seed, self._everywhere = seed_key(seed), NamedSharding(mesh, P())
        self._key: jax.Array | None = None

        def update(
            state: State, context: Any, batch: Any, key: jax.Array
        ) -> tuple[State, jax.Array]:
            step, params = state["step"], state["params"]
            key = jax.random.fold_in(jax.random.wrap_key_data(key), 1)
            key = jax.random.fold_in(key, step)
            rows = task.table_rows(context, batch)
            looked_up = {
                name: gather_rows(params["tables"][name], r, mesh) for name, r in rows.items()
            }

            def gradients(stats: Any, looked_up: Any, batch: Any, key: jax.Array) -> Any:
                def objective(net: Any, looked_up: Any) -> Any:
                    return task.loss(net, looked_up, stats, context, batch, key)

                return jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(
                    params["net"], looked_up
                )

            if micro_batches == 1:
                found = gradients(state["stats"], looked_up, batch, key)
            else:
                found = _accumulated(
                    gradients, state["stats"], looked_up, batch, key, micro_batches
                )
            (loss, (stats, metrics)), (net_gradient, row_gradients) = found
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
            new = {
                "step": step + 1,
                "params": {"net": net, "tables": new_tables},
                "stats": stats,
                "opt": {"net": net_state, "tables": table_states},
            }
            if "ema" in state:
                new["ema"] = optimiser.average(state["ema"], {"net": net, "stats": stats}, step)
            return new, jnp.stack(packed)

        self._update = jax.jit(
            update,
            donate_argnums=0,
            out_shardings=(shardings_of(abstract), self._everywhere),
        )

    def __call__(
        self, state: State, context: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> tuple[State, jax.Array]:
        """Dispatches one update; does not wait for it.

        Returns:
            The new state and the packed metrics, for :meth:`unpack`.
        """
        if self._key is None:
            # Not before: what is only compiled may be for devices that are not here.
            with jax.transfer_guard("allow"):
                self._key = jax.device_put(self._seed, self._everywhere)
        return self._update(state, context, batch, self._key)

    def unpack(self, packed: jax.Array) -> dict[str, tuple[float, float]]:
        """Metric -> (sum, weight) on the host; waits for the update."""
        values = np.asarray(jax.device_get(packed), np.float64)
        return {
            name: (float(total), float(weight))
            for name, (total, weight) in zip(self._names, values, strict=True)
        }

    def lower(
        self, state: Any, context: Any, batch: Any, platforms: tuple[str, ...] | None = None
    ) -> Any:
        """The lowered update (``jax.stages.Lowered``), to count its operations.

        Shapes with shardings will do for the arrays, also such of devices that are not here.
        ``platforms`` such as ("cuda",) are those that it is lowered for, None = the devices' own.
        """
        key = jax.ShapeDtypeStruct(self._seed.shape, self._seed.dtype, sharding=self._everywhere)
        traced = self._update.trace(state, context, batch, key)
        return traced.lower(lowering_platforms=platforms)


def _accumulated(
    gradients: Any, stats: Any, looked_up: Any, batch: Any, key: jax.Array, parts: int
) -> Any:
    """What ``gradients`` gives, its mean over parts of the batch that are taken in turn."""

    def split(array: jax.Array) -> jax.Array:
        # Part i has examples i, i + parts, ...: each stays on the device that holds it.
        return array.reshape(array.shape[0] // parts, parts, *array.shape[1:]).swapaxes(0, 1)

    def join(array: jax.Array) -> jax.Array:
        return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])

    def one(carried: Any, part: Any) -> Any:
        stats, total = carried
        number, looked_up, batch = part
        (loss, (stats, metrics)), (net, rows) = gradients(
            stats, looked_up, batch, jax.random.fold_in(key, number)
        )
        return (stats, jax.tree.map(jnp.add, total, net)), (loss, metrics, rows)

    pieces = jnp.arange(parts), jax.tree.map(split, looked_up), jax.tree.map(split, batch)
    first = jax.tree.map(lambda leaf: leaf[0], pieces)
    like = jax.eval_shape(lambda: gradients(stats, first[1], first[2], key))[1][0]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    (stats, net), (losses, metrics, rows) = jax.lax.scan(one, (stats, zeros), pieces)
    metrics = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), metrics)
    net = jax.tree.map(lambda leaf: leaf / parts, net)
    rows = jax.tree.map(lambda leaf: join(leaf) / parts, rows)
    return (losses.mean(), (stats, metrics)), (net, rows)
