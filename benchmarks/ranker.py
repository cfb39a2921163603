"""How fast the full ranker trains, in the paper's sizes, against dense Adam on all parameters.

    python -m benchmarks.ranker                         (make bench-ranker)
    python -m benchmarks.ranker --umcm senet --batch_sizes 4096
    python -m benchmarks.ranker --allocator default     (what umair_jax/memory.py is worth)

The step is the one of umair_jax.train: look-ups from the stored vectors, dropout, BatchNorm, Adam
for the network, row-wise Adagrad for tables of 1,000,000 drawings and 100,000 users; batches are
put on the device and metrics fetched as there. One device. The peer `dense-adam`
(benchmarks/dense_adam.py) shares network and data; its rounds are taken between ours.

`authors_keras` is quoted, not measured here: the authors' layers for look-ups and
squeeze-excitation in Keras, on two threads of a quiet machine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import machine, made_up, report
from benchmarks.dense_adam import DenseAdamStep
from umair_jax.data.ranking import RankingData
from umair_jax.memory import keep_freed_memory
from umair_jax.models.ranker import RankerConfig
from umair_jax.tasks.bookmarks import BookmarksTask, batch_source, shape_of
from umair_jax.training import state as states
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh, place_context
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

AUTHORS_KERAS = {128: 2881, 512: 8721, 4096: 24998}  # examples/s
UMCMS = ("attention", "senet")
BATCHES = 16  # different ones, served over and over

Step = Callable[[Any, Any, Any], tuple[Any, jax.Array]]


class Runner:
    """A step with its state, run in rounds of the same length."""

    def __init__(
        self,
        step: Step,
        state: Any,
        context: Any,
        batches: Sequence[Mapping[str, np.ndarray]],
        place: BatchPlacer,
        round_seconds: float,
    ) -> None:
        """Compiles the step and finds out how many make a round."""
        self._step, self._state, self._context = step, state, context
        self._batches, self._place = batches, place
        self._done = 0
        self.usage = machine.Usage()
        self._run(3)
        trial = machine.Usage()
        with trial.round():
            self._run(3)
        self.steps = max(3, math.ceil(round_seconds / (trial.seconds[0] / 3)))

    def _run(self, steps: int) -> None:
        previous = None
        for _ in range(steps):
            batch = self._place(self._batches[self._done % len(self._batches)])
            self._state, metrics = self._step(self._state, self._context, batch)
            # As in the loop: the metrics of a step are fetched after the next is dispatched.
            if previous is not None:
                jax.device_get(previous)
            previous = metrics
            self._done += 1
        jax.block_until_ready((self._state, previous))

    def round(self) -> None:
        """Runs and measures one round."""
        with self.usage.round():
            self._run(self.steps)

    @property
    def step_seconds(self) -> float:
        """Wall time of a step, median over the rounds."""
        return float(np.median(self.usage.seconds)) / self.steps

    @property
    def cpu_seconds(self) -> float:
        """CPU time of a step."""
        return self.usage.cpu_seconds / (len(self.usage.seconds) * self.steps)


def train_step(task: BookmarksTask, mesh: Mesh) -> tuple[TrainStep, Any]:
    """The step of the training loop, and a state that nothing has been trained of."""
    optimiser, tables = make_optimiser(OptimConfig(), total_steps=1000), TableOptimConfig()
    init = states.initialiser(task, optimiser, tables, seed=0)
    abstract = states.abstract_state(init, mesh, MeshConfig().rules)
    step = TrainStep(task, optimiser, tables, mesh, 0, abstract)
    return step, states.create(init, abstract)


def measure(
    data: RankingData,
    config: RankerConfig,
    mesh: Mesh,
    context: Mapping[str, jax.Array],
    batch_size: int,
    rounds: int,
    round_seconds: float,
    peak: machine.MatrixPeak,
) -> dict[str, Any]:
    """One case: our step and the peer's, round by round, and a matrix product between them."""
    task, place = BookmarksTask(data, config), BatchPlacer(mesh, batch_size)
    step, state = train_step(task, mesh)
    source = batch_source(data, "train", batch_size)
    batches = [source.batch(k) for k in range(BATCHES)]
    cost = step.lower(state, context, place(batches[0])).compile().cost_analysis()
    flops = float((cost[0] if isinstance(cost, list) else cost)["flops"])
    peer = DenseAdamStep(task)
    peer_state = peer.init(state["params"], state["stats"])
    runners = [
        Runner(step, state, context, batches, place, round_seconds),
        Runner(peer, peer_state, context, batches, place, round_seconds),
    ]
    for _ in range(rounds):
        peak.measure()
        for runner in runners:
            runner.round()
    ours, theirs = runners
    gflops = flops / ours.step_seconds / 1e9
    return {
        "ours": batch_size / ours.step_seconds,
        "peer": batch_size / theirs.step_seconds,
        "ratio": theirs.step_seconds / ours.step_seconds,
        "unit": "examples/s",
        "peer_name": "dense-adam",
        "batch_size": batch_size,
        "examples_per_cpu_second": batch_size / ours.cpu_seconds,
        "step_ms": 1e3 * ours.step_seconds,
        "fastest_round_step_ms": 1e3 * min(ours.usage.seconds) / ours.steps,
        "peer_step_ms": 1e3 * theirs.step_seconds,
        "flops_per_step": flops,
        "gflops_per_second": gflops,
        "matrix_peak_gflops_per_second": peak.gflops,
        "share_of_matrix_peak": gflops / peak.gflops,
        "foreign_cpu_share": ours.usage.foreign_share,
    }


def run(
    sizes: made_up.Sizes,
    umcms: Sequence[str],
    batch_sizes: Sequence[int],
    rounds: int,
    round_seconds: float,
    matrix: int,
    network: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Measures every case.

    Args:
        sizes: Of the made-up data.
        umcms: Fusions of the modalities to measure.
        batch_sizes: Examples a step.
        rounds: Rounds of each step; the figures are medians over them.
        round_seconds: Length of a round, about.
        matrix: Size of the matrix product that stands for the machine's peak.
        network: Fields of RankerConfig that are to differ from the defaults.

    Returns:
        One result for each case.
    """
    about = machine.describe() | {"device": jax.devices()[0].device_kind}
    machine.progress("making up data")
    data = made_up.ranking_data(sizes)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    context = place_context(data.context, mesh)
    results = []
    for umcm in umcms:
        config = RankerConfig(**{**shape_of(data.schema), "umcm": umcm, **network})
        for batch_size in batch_sizes:
            case = f"{umcm}, batch {batch_size:,}"
            machine.progress(case)
            peak = machine.MatrixPeak(matrix)
            row = {"bench": "ranker", "case": case, "umcm": umcm}
            row |= measure(data, config, mesh, context, batch_size, rounds, round_seconds, peak)
            if batch_size in AUTHORS_KERAS:
                quoted = AUTHORS_KERAS[batch_size]
                row |= {
                    "authors_keras": quoted,
                    "authors_keras_ratio": row["ours"] / quoted,
                    "authors_keras_is": "quoted, not measured in this run",
                }
            results.append(row | about)
            report.emit(results[-1])
    return results


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Parses the options, measures, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--umcm", nargs="+", default=UMCMS, choices=UMCMS, help="fusions")
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, default=(128, 512, 1024, 4096), help="examples a step"
    )
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each step")
    parser.add_argument("--round_seconds", type=float, default=0.7, help="length of a round")
    parser.add_argument("--matrix", type=int, default=2048, help="size of the peak's product")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS / "ranker.jsonl", help="file to write"
    )
    parser.add_argument(
        "--allocator",
        default="keeping",
        choices=("keeping", "default"),
        help="keeping: as the front doors, see umair_jax/memory.py; default: glibc's own",
    )
    options = parser.parse_args(argv)
    if options.allocator == "keeping":
        keep_freed_memory()
    results = run(
        made_up.Sizes(),
        options.umcm,
        options.batch_sizes,
        options.rounds,
        options.round_seconds,
        options.matrix,
        {},
    )
    results = [row | {"allocator": options.allocator} for row in results]
    report.write(results, options.out)
    report.show(
        "Train step of the full ranker, examples a second",
        results,
        {
            "case": "case",
            "ours": "ours",
            "peer": "dense-adam",
            "ratio": "ratio",
            "step_ms": "step, ms",
            "share_of_matrix_peak": "share of matrix peak",
            "authors_keras": "authors' Keras (quoted)",
            "authors_keras_ratio": "ratio to it",
            "foreign_cpu_share": "foreign CPU",
        },
    )
    return results


if __name__ == "__main__":
    main()
