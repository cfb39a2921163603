"""Measures a checkpoint again, from the working directory alone.

Prints the table that training ended with, and renews these numbers in summary.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import jobs, results
from umair_jax.training import checkpoints, record, sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import make_optimiser


def evaluate(
    workdir: str | Path, checkpoint: str = "best", console: Console | None = None
) -> dict[str, Any]:
    """Measures a checkpoint on the validation and test examples.

    Args:
        workdir: Folder of a run, finished or not.
        checkpoint: best, newest, or the number of updates behind it.
        console: Where the table goes.

    Returns:
        The summary, renewed.

    Raises:
        ValueError: There is no such run or checkpoint.
    """
    console = console or Console()
    workdir = Path(workdir)
    path = workdir / record.CONFIG_FILE
    if not path.exists():
        raise ValueError(
            f"{workdir}: got no {path.name}; expected the folder of a run; train first, or name "
            "another --workdir"
        )
    config = ConfigDict(json.loads(path.read_text("utf-8"))["config"])
    job = jobs.assemble(config, console)
    mesh = sharding.make_mesh(job.fit.mesh)
    total = job.fit.train.total_steps(len(job.source))
    init = states.initialiser(
        job.task, make_optimiser(job.fit.optim, total), job.fit.tables, job.fit.train.seed
    )
    abstract = states.abstract_state(init, mesh, job.fit.mesh.rules)
    step, state, _ = checkpoints.load(workdir, abstract, checkpoint)
    context = sharding.place_context(job.task.context(), mesh, job.fit.mesh.context_rules)
    predictor = Predictor(job.task, mesh)

    evals = {}
    for name, evaluator in job.evaluators().items():
        arrays = predictor(state, context, evaluator.source)
        assert arrays is not None  # nobody can stop it
        evals[name] = evaluator.metrics(arrays)
    summary = {
        "task": job.task.name,
        "source": job.dataset.name,
        "simulated": job.dataset.simulated,
        **results.read(workdir),
        "evaluated_step": step,
        **job.measured(evals),
    }
    results.write(workdir, summary)
    job.show(summary, console)
    console.print(f"Checkpoint {step:,} of {workdir}")
    return summary
