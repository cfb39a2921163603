"""The training loop. At each step: evaluate, save, take the next batch, update.

Checkpoint ``s`` is the state after ``s`` updates and batch ``s`` comes next, so that a run that is
cut off anywhere goes on as if nothing had happened: on the same mesh bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh

from umair_jax import hosts
from umair_jax.data.batches import BatchSource
from umair_jax.training import checkpoints as ckpt
from umair_jax.training import cost as costs
from umair_jax.training import state as states
from umair_jax.training.checkpoints import Checkpoints
from umair_jax.training.claim import claimed
from umair_jax.training.evaluation import Arrays, Evaluator, Predictor
from umair_jax.training.interrupts import Interrupts
from umair_jax.training.ledger import Ledger
from umair_jax.training.logs import COST, FINAL, TRAIN, MetricsWriter
from umair_jax.training.optimisers import make_optimiser
from umair_jax.training.profile import Profile
from umair_jax.training.progress import Progress
from umair_jax.training.record import check_config, write_config
from umair_jax.training.settings import FitConfig
from umair_jax.training.sharding import BatchPlacer, make_mesh, place_context
from umair_jax.training.step import TrainStep


@runtime_checkable
class Task(Protocol):
    """What is trained: a model, its loss and its predictions, as pure functions."""

    name: str

    def init(self, key: jax.Array) -> dict[str, Any]:
        """``{"params": {"net", "tables"}, "stats"}``; may be jitted."""
        ...

    def context(self) -> Mapping[str, np.ndarray]:
        """Arrays placed on the mesh once and given to every call below (feature bank)."""
        ...

    def table_rows(self, context: Any, batch: Any) -> dict[str, jax.Array]:
        """Table -> int32 rows [...] that the batch needs."""
        ...

    def loss(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, tuple[Any, Any]]]]:
        """Loss, new statistics and metrics {name: (sum, weight)}; ``rows`` holds [..., D]."""
        ...

    def predict(
        self, net: Any, rows: Any, stats: Any, context: Any, batch: Any
    ) -> dict[str, jax.Array]:
        """Name -> [B, ...]."""
        ...


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a run gave.

    Attributes:
        steps: updates made.
        seconds: training time, over all parts of an interrupted run, without compilation,
            evaluation and checkpoints.
        examples_per_second: in that time.
        data_wait_share: share of that time in which the devices waited for batches, in [0, 1].
        train: last reported training metrics.
        evals: evaluator -> metrics of ``state``.
        params: number of trained values.
        state: the best state (``checkpoint.restore_best``) or the last one.
        state_step: updates behind ``state``.
        stopped_early: the metric had stopped improving.
        interrupted: a signal ended the run; the same call goes on with it.
        predict: predictions of ``state`` for any source, {name: [E, ...]}.
    """

    steps: int
    seconds: float
    examples_per_second: float
    data_wait_share: float
    train: dict[str, Any]
    evals: dict[str, dict[str, Any]]
    params: int
    state: states.State
    state_step: int
    stopped_early: bool
    interrupted: bool
    predict: Callable[[BatchSource], Arrays]


def fit(
    task: Task,
    source: BatchSource,
    evaluators: Mapping[str, Evaluator],
    config: FitConfig,
    workdir: str | Path,
    mesh: Mesh | None = None,
    restart: bool = False,
    record: Mapping[str, Any] | None = None,
    made_from: Mapping[str, str] | None = None,
) -> FitResult:
    """Trains a task, or goes on with its training, and evaluates it.

    A run that ``workdir`` holds is continued; a finished one is only evaluated again. SIGTERM and
    Ctrl-C finish the update, save, and return with ``interrupted`` set.

    Args:
        task: what to train.
        source: training examples; its batch size is ``config.train.batch_size``.
        evaluators: name -> examples and metrics.
        config: everything else.
        workdir: where checkpoints, metrics and the configuration go.
        mesh: devices; made from ``config.mesh`` if None.
        restart: delete the run in ``workdir`` first.
        record: resolved configuration for ``config.json``, compared when a run goes on;
            ``config`` as a dictionary if None.
        made_from: name -> digest of what the examples are made from, likewise.

    Raises:
        ValueError: ``workdir`` holds another run, is in use or cannot be written to, or sizes do
            not fit the mesh.
        FloatingPointError: a training metric is NaN or infinite; the last checkpoint stays.
    """
    workdir, train = Path(workdir), config.train
    if source.batch_size != train.batch_size:
        raise ValueError(
            f"the source serves batches of {source.batch_size}, train.batch_size is "
            f"{train.batch_size}; make them equal"
        )
    mesh = mesh or make_mesh(config.mesh)
    _check_evaluators(evaluators, mesh, config.checkpoint.best_metric)
    total = train.total_steps(len(source))
    main = hosts.is_first()

    # Shapes, then places; nothing is touched before both are known to fit.
    optimiser = make_optimiser(config.optim, total)
    init = states.initialiser(task, optimiser, config.tables, train.seed)
    abstract = states.abstract_state(init, mesh, config.mesh.rules)
    place = BatchPlacer(mesh, train.batch_size)
    _check_micro_batches(train.batch_size, train.micro_batches, mesh)
    record = dataclasses.asdict(config) if record is None else record

    alone = jax.process_count() == 1
    with Interrupts(catch=alone) as interrupts, contextlib.ExitStack() as closing:
        if main:
            closing.enter_context(claimed(workdir))
        _open_workdir(workdir, record, made_from, restart)
        if config.log.sharding_table and main:
            print(states.describe(abstract), flush=True)
        # Then arrays: from the newest checkpoint, or new.
        saved = Checkpoints(workdir, config.checkpoint, say=print)
        closing.callback(saved.close)
        found = saved.restore_newest(abstract)
        step, state, ledger = found or (0, states.create(init, abstract), Ledger())
        context = place_context(task.context(), mesh, config.mesh.context_rules)
        step_fn = TrainStep(
            task, optimiser, config.tables, mesh, train.seed, abstract, train.micro_batches
        )
        predictor = Predictor(task, mesh)
        evaluated = ledger.evaluated_step == step
        writer = MetricsWriter(workdir, step, config.log.tensorboard, main, evaluated)
        closing.callback(writer.close)
        profile = Profile(workdir, config.log)
        closing.callback(profile.stop)
        progress = Progress(
            step, total, train.batch_size, config.log.progress and main, spent=ledger.spent
        )
        if found:
            progress.say(f"{workdir}: going on from checkpoint {step} of {total}")
        batches = source.iterate(step, max(step, total), place.rows, train.read_threads)
        pending: tuple[int, Any] | None = None
        cost: costs.Cost | None = None

        def collect() -> None:
            """Takes in the metrics of the last update, waiting for it."""
            nonlocal pending
            if pending is None:
                return
            (number, packed), pending = pending, None
            ledger.add(number, step_fn.unpack(packed))
            if number % train.log_every_steps == 0 or number == total:
                means = ledger.close_window()
                progress.report(means)
                rate = float(optimiser.rate(number - 1))
                writer.write(number, TRAIN, means | {"learning_rate": rate})

        def evaluate(of: int, final: bool) -> dict[str, dict] | None:
            """Metrics of ``state``, the one of step ``of``; None if a signal cut them off."""
            results = {}
            for name, evaluator in evaluators.items():
                if final or not evaluator.final_only:
                    arrays = predictor(
                        state, context, evaluator.source, lambda: interrupts.requested
                    )
                    if arrays is None:
                        return None
                    results[name] = evaluator.metrics(arrays)
            for name, values in results.items():
                writer.write(of, (FINAL if final else "") + name, values)
                label = f"final (step {of:,})" if final else f"step {of:,}"
                progress.say(f"{label}  {name}: {_short(values)}")
            return results

        while True:
            best, results = False, None
            if _due(step, train.eval_every_steps, total) and ledger.evaluated_step != step:
                progress.pause()
                collect()
                results = evaluate(step, final=False)
                if results is not None:
                    metric, mode = config.checkpoint.best_metric, config.checkpoint.best_mode
                    best = ledger.evaluated(step, results, metric, mode)
                    patience = train.early_stop_evals
                    ledger.stopped_early = 0 < patience <= ledger.evals_since_best
                progress.go_on()

            interrupted = interrupts.requested or saved.reached_preemption(step)
            finished = step >= total or ledger.stopped_early
            due = _due(step, train.checkpoint_every_steps, total)
            if step > 0 and (finished or interrupted or best or due):
                progress.pause()
                collect()
                ledger.spent = progress.spent
                writer.flush()
                # One that a signal saved before its evaluation does not know yet that it is best.
                saved.save(step, state, ledger, replace=finished and results is not None)
                progress.go_on()
            if finished or interrupted:
                break

            waiting = time.perf_counter()
            batch = next(batches)
            # While the devices are at the update before, nothing is lost.
            if pending is None or pending[1].is_ready():
                progress.waited(time.perf_counter() - waiting)
            profile.at(step)
            if config.log.cost and cost is None:
                cost = costs.of(step_fn.lower(state, context, place(batch)).compile())
                progress.say(str(cost))
            with jax.transfer_guard("disallow"):
                state, packed = step_fn(state, context, place(batch))
            collect()
            step += 1
            pending = (step, packed)
            progress.stepped(step)

        progress.pause()
        saved.wait()
        if cost is not None and progress.step_seconds:
            roofline = costs.measured_roofline()
            seconds, share = progress.step_seconds, roofline.share(cost, progress.step_seconds)
            progress.say(f"{seconds * 1e3:.2f} ms an update: {share:.1%} of what {roofline} allow")
            measured = {"step_seconds": seconds, "share_of_roofline": share}
            writer.write(step, COST, cost.values() | measured)
        state_step, evals = step, dict(ledger.evals)
        if finished:
            interrupted = False
            if config.checkpoint.restore_best and 0 <= ledger.best_step != step:
                state_step = ledger.best_step
                state, _ = saved.restore(state_step, abstract)
            results = evaluate(state_step, final=True)
            interrupted, evals = results is None, results or evals
        else:
            progress.say(f"interrupted at step {step}; run the same command to go on")

    def predict(source: BatchSource) -> Arrays:
        arrays = predictor(state, context, source)
        assert arrays is not None
        return arrays

    return FitResult(
        steps=step,
        seconds=progress.seconds,
        examples_per_second=progress.examples_per_second,
        data_wait_share=progress.data_wait_share,
        train=ledger.train,
        evals=evals,
        params=states.count_params(abstract),
        state=state,
        state_step=state_step,
        stopped_early=ledger.stopped_early,
        interrupted=interrupted,
        predict=predict,
    )


def _open_workdir(
    workdir: Path,
    record: Mapping[str, Any],
    made_from: Mapping[str, str] | None,
    restart: bool,
) -> None:
    """Clears the directory if asked, compares its configuration, and writes this one."""
    main = hosts.is_first()
    hosts.require_shared(workdir, "workdir")
    if restart:
        if main:
            ckpt.clear(workdir)
        hosts.barrier("restart")
    check_config(workdir, record, made_from)
    hosts.barrier("compare the configuration")
    if main:
        write_config(workdir, record, made_from)


def _check_micro_batches(batch_size: int, parts: int, mesh: Mesh) -> None:
    if batch_size % (parts * mesh.shape["data"]):
        raise ValueError(
            f"train.batch_size {batch_size} does not divide into {parts} micro-batches over "
            f"{mesh.shape['data']} devices; use a multiple of {parts * mesh.shape['data']}"
        )


def _check_evaluators(evaluators: Mapping[str, Evaluator], mesh: Mesh, metric: str) -> None:
    """Finds before the training what would end it at the first evaluation."""
    for name, evaluator in evaluators.items():
        try:
            BatchPlacer(mesh, evaluator.source.batch_size)
        except ValueError as error:
            raise ValueError(f"evaluator {name!r}: {error}") from error
    during = [name for name, evaluator in evaluators.items() if not evaluator.final_only]
    if metric and metric.rsplit("/", 1)[0] not in during:
        raise ValueError(
            f"checkpoint.best_metric is {metric!r}, but these are evaluated during training: "
            f"{', '.join(during) or 'none'}"
        )


def _due(step: int, every: int, total: int) -> bool:
    return step > 0 and (step == total or (every > 0 and step % every == 0))


def _short(values: Mapping[str, Any]) -> str:
    shown = [k for k in values if not k.endswith(("_low", "_high"))]
    return "  ".join(f"{k} {values[k]:.4f}" for k in shown)
