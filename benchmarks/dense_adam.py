"""The peer of the ranker's benchmark: tables as ordinary parameters under one dense optax.adam."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from umair_jax.tasks.bookmarks import BookmarksTask


class DenseAdamStep:
    """The same network, inputs and loss as ours, trained as the published code does.

    The tables are differentiated through their look-ups, so that the gradient is an array of the
    size of the table, and Adam visits every row at every step. No one-hots are built; the published
    wide part does build them, which would cost more still.
    """

    def __init__(self, task: BookmarksTask, learning_rate: float = 1e-3, seed: int = 0) -> None:
        """Builds the function; nothing is compiled yet.

        Args:
            task: The ranker.
            learning_rate: Of all parameters.
            seed: Of the dropout.
        """
        optimiser = optax.adam(learning_rate, eps=1e-7)

        def update(state: dict[str, Any], context: Any, batch: Any) -> tuple[dict, jax.Array]:
            key = jax.random.fold_in(jax.random.key(seed), state["step"])

            def objective(params: Any) -> Any:
                looked_up = {
                    name: params["tables"][name][rows]
                    for name, rows in task.table_rows(context, batch).items()
                }
                return task.loss(params["net"], looked_up, state["stats"], context, batch, key)

            (loss, (stats, _)), gradient = jax.value_and_grad(objective, has_aux=True)(
                state["params"]
            )
            changes, opt = optimiser.update(gradient, state["opt"], state["params"])
            params = optax.apply_updates(state["params"], changes)
            return {"step": state["step"] + 1, "opt": opt, "params": params, "stats": stats}, loss

        self._optimiser = optimiser
        self._update = jax.jit(update, donate_argnums=0)

    def init(self, params: Any, stats: Any) -> dict[str, Any]:
        """The state of step 0, with copies of these parameters and statistics."""
        params, stats = jax.tree.map(jnp.copy, (params, stats))
        opt = self._optimiser.init(params)
        return {"step": jnp.zeros((), jnp.int32), "opt": opt, "params": params, "stats": stats}

    def __call__(self, state: dict[str, Any], context: Any, batch: Any) -> tuple[dict, jax.Array]:
        """Dispatches one update; the given state is donated."""
        return self._update(state, context, batch)
