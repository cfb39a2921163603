import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_task

from umair_jax.data.batches import BatchSource
from umair_jax.training import checkpoints as ckpt
from umair_jax.training import logs, loop
from umair_jax.training.settings import FitConfig, TrainConfig
from umair_jax.training.sharding import MeshConfig, make_mesh
from umair_jax.training.step import TrainStep

TOY = Path(toy_task.__file__)

pytestmark = pytest.mark.usefixtures("compiled_once")


def run(workdir, task=None, **options):
    """The shared run unless told otherwise: 24 updates, an evaluation every 8."""
    small = {"train__steps": 24, "train__eval_every_steps": 8, "log__progress": False}
    return toy_task.run(workdir, task, **(small | options))


def mesh_of(devices, model=1):
    return make_mesh(MeshConfig(model=model), jax.devices()[:devices])


def checkpoints(workdir):
    return sorted(int(p.name) for p in (workdir / ckpt.CHECKPOINT_DIR).iterdir())


def last_state(workdir, result, which="newest"):
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        result.state,
    )
    return ckpt.load(workdir, abstract, which)[1]


def assert_same(left, right):
    left, right = toy_task.leaves(left), toy_task.leaves(right)
    assert left.keys() == right.keys()
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=path)


def assert_same_run(workdir, result, reference):
    """Bit for bit: metrics of every step, final evaluations, best state, last state."""
    expected_dir, expected = reference
    assert logs.read(workdir) == logs.read(expected_dir)
    assert result.evals == expected.evals
    assert result.train == expected.train
    assert result.state_step == expected.state_step
    assert_same(result.state, expected.state)
    assert_same(last_state(workdir, result), last_state(expected_dir, expected))


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """A signal arrives while update ``step`` is dispatched."""
    call = TrainStep.__call__
    count = 0

    def patched(self, *arguments):
        nonlocal count
        count += 1
        if count == step:
            signal.raise_signal(number)
        return call(self, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", patched)


@pytest.fixture(autouse=True)
def no_program_is_left():
    yield
    for program in Program.started:
        if program.process.poll() is None:
            program.kill()
    Program.started.clear()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, compiled_once):
    workdir = tmp_path_factory.mktemp("unbroken")
    return workdir, run(workdir)


def test_a_run_learns_and_reports(unbroken):
    workdir, result = unbroken
    assert (result.steps, result.interrupted, result.stopped_early) == (24, False, False)
    assert result.params == 64 * toy_task.WIDTH + 4
    assert result.seconds > 0
    assert result.examples_per_second > 0
    assert 0 <= result.data_wait_share <= 1
    assert set(result.evals) == {"valid", "test"}
    assert result.evals["test"]["auc"] > 0.65
    lines = [(line["step"], line["kind"]) for line in logs.read(workdir)]
    during = [(s, kind) for s, kind in lines if not kind.startswith(logs.FINAL)]
    assert [s for s, kind in during if kind == "train"] == [5, 10, 15, 20, 24]
    assert [s for s, kind in during if kind == "valid"] == [8, 16, 24]
    assert lines[len(during) :] == [(result.state_step, f"final/{n}") for n in ("valid", "test")]
    train = [line for line in logs.read(workdir) if line["kind"] == "train"]
    assert train[-1]["loss"] < train[0]["loss"]
    assert {k: train[-1][k] for k in result.train} == result.train
    # The rate of update 24, of a cosine over 24 updates.
    rate = 0.02 * 0.5 * (1 + np.cos(np.pi * 23 / 24))
    assert train[-1]["learning_rate"] == pytest.approx(rate, rel=1e-4)


def test_time_without_a_batch_is_counted_and_work_meanwhile_is_not(tmp_path, monkeypatch):
    iterate = BatchSource.iterate

    def slowly(self, *arguments):
        for batch in iterate(self, *arguments):
            time.sleep(0.02)
            yield batch

    monkeypatch.setattr(BatchSource, "iterate", slowly)
    starved = run(tmp_path / "starved", train__eval_every_steps=0)
    assert starved.data_wait_share > 0.3
    # As if every update took longer than the next batch.
    monkeypatch.setattr(type(starved.state["step"]), "is_ready", lambda self: False)
    busy = run(tmp_path / "busy", train__eval_every_steps=0)
    assert busy.data_wait_share < 0.5 * starved.data_wait_share


def test_reported_metrics_are_weighted_means_of_the_batches(unbroken, tmp_path):
    workdir, _ = unbroken
    run(tmp_path, train__log_every_steps=1)
    each = [line["loss"] for line in logs.read(tmp_path) if line["kind"] == "train"]
    assert len(each) == 24
    means = [line["loss"] for line in logs.read(workdir) if line["kind"] == "train"]
    expected = [np.mean(each[a:b]) for a, b in ((0, 5), (5, 10), (10, 15), (15, 20), (20, 24))]
    np.testing.assert_allclose(means, expected, rtol=1e-12)


def test_predict_is_the_state_that_is_returned(unbroken):
    _, result = unbroken
    source = BatchSource(toy_task.columns(70, seed=2), 16, shuffle=False)
    evaluator = toy_task.evaluator(source)
    assert evaluator.metrics(result.predict(source)) == result.evals["test"]


@pytest.mark.parametrize("step", [3, 10, 16, 23])
def test_an_interrupted_run_goes_on_bit_for_bit(step, unbroken, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        first = run(tmp_path)
    assert first.interrupted
    assert first.steps == step
    assert checkpoints(tmp_path)[-1] == step
    second = run(tmp_path)
    assert not second.interrupted
    assert_same_run(tmp_path, second, unbroken)


@pytest.mark.parametrize("part", ["during training", "the last one"])
def test_a_signal_during_an_evaluation(part, unbroken, tmp_path, monkeypatch):
    """The state is saved at once; the evaluation is made when the run goes on, and counts."""
    at = 8 if part == "during training" else 24
    evaluation = iter(range(3))
    padded = BatchSource.padded_batches

    def patched(self, rows=None):
        if next(evaluation, None) == at // 8 - 1:
            signal.raise_signal(signal.SIGTERM)
        return padded(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(BatchSource, "padded_batches", patched)
        first = run(tmp_path)
    assert first.interrupted or at == 24
    assert first.steps == at
    assert [line["step"] for line in logs.read(tmp_path) if line["kind"] == "valid"] == list(
        range(8, at, 8)
    )
    # Cut off once more, after the evaluation and before the next checkpoint.
    with monkeypatch.context() as patch:
        patch.setattr(ckpt.Checkpoints, "save", lambda *arguments, **named: explode())
        with pytest.raises(CrashError):
            run(tmp_path)
    second = run(tmp_path)
    assert_same_run(tmp_path, second, unbroken)
    assert_same(last_state(tmp_path, second, "best"), second.state)


class CrashError(Exception):
    pass


def explode(*arguments, **named):
    raise CrashError


def test_a_finished_run_is_only_evaluated(unbroken, tmp_path, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(TrainStep, "__call__", explode)
    again = run(tmp_path)
    assert_same_run(tmp_path, again, unbroken)
    assert again.seconds == pytest.approx(json_ledger(tmp_path, 24)["spent"]["seconds"])


def json_ledger(workdir, step):
    path = workdir / ckpt.CHECKPOINT_DIR / str(step) / "ledger" / "metadata"
    return json.loads(path.read_text())


def test_a_longer_run_goes_on_with_a_finished_one(tmp_path):
    run(tmp_path, train__steps=8, optim__schedule="constant")
    longer = run(tmp_path, train__steps=16, optim__schedule="constant")
    assert longer.steps == 16
    steps = [line["step"] for line in logs.read(tmp_path) if line["kind"] == "valid"]
    assert steps == [8, 16]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_tables_in_less_memory_go_on_bit_for_bit(dtype, tmp_path):
    options = {
        "tables__dtype": dtype,
        "optim__schedule": "constant",
        "checkpoint__restore_best": False,
    }
    whole = run(tmp_path / "whole", train__steps=20, **options)
    assert whole.state["params"]["tables"]["embedding"].dtype == dtype
    assert whole.evals["test"]["auc"] > 0.6
    run(tmp_path / "parts", train__steps=10, **options)
    parts = run(tmp_path / "parts", train__steps=20, **options)
    left, right = toy_task.leaves(parts.state), toy_task.leaves(whole.state)
    for path, leaf in left.items():
        np.testing.assert_array_equal(leaf, right[path], err_msg=path)


def test_restart_begins_anew(unbroken, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run(tmp_path, train__steps=7, optim__learning_rate=0.5)
    result = run(tmp_path, restart=True)
    assert_same_run(tmp_path, result, unbroken)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_configuration_is_refused(unbroken, tmp_path):
    run(tmp_path, train__steps=2)
    with pytest.raises(ValueError, match="another configuration") as error:
        run(tmp_path, train__steps=2, optim__learning_rate=0.5, train__seed=4)
    assert "optim.learning_rate: 0.02 in the run, 0.5 now" in str(error.value)
    assert "train.seed: 0 in the run, 4 now" in str(error.value)
    assert checkpoints(tmp_path) == [2]
    # What decides neither the model nor the next update may differ.
    assert run(tmp_path, train__steps=3, checkpoint__keep=7, mesh__model=2).steps == 3


@pytest.mark.parametrize("devices", [1, 4])
def test_any_number_of_devices_gives_the_same_run(devices, unbroken, tmp_path):
    workdir, expected = unbroken
    result = run(tmp_path, mesh=mesh_of(devices, model=2 if devices == 4 else 1))
    assert_close_run(tmp_path, result, workdir, expected)


def test_a_run_moves_to_fewer_devices_and_back(unbroken, tmp_path, monkeypatch):
    workdir, expected = unbroken
    for devices, stop in ((8, 7), (2, 6), (1, 5)):
        with monkeypatch.context() as patch:
            stop_at(patch, stop)
            assert run(tmp_path, mesh=mesh_of(devices)).interrupted
    result = run(tmp_path, mesh=mesh_of(8, model=4))
    assert_close_run(tmp_path, result, workdir, expected)


def assert_close_run(workdir, result, expected_dir, expected):
    lines, wanted = logs.read(workdir), logs.read(expected_dir)
    assert len(lines) == len(wanted)
    for line, other in zip(lines, wanted, strict=True):
        assert line.keys() == other.keys()
        for name in line:
            assert line[name] == pytest.approx(other[name], abs=1e-5), (line["step"], name)
    assert result.state_step == expected.state_step
    left, right = toy_task.leaves(result.state), toy_task.leaves(expected.state)
    for path, leaf in left.items():
        np.testing.assert_allclose(leaf, right[path], atol=1e-5, err_msg=path)


class Program:
    """toy_task.py in a process of its own; all hosts together have the devices of this one."""

    started: ClassVar[list] = []

    def __init__(self, workdir, environment, **options):
        self.started.append(self)
        self.workdir = workdir
        given = {
            "train__steps": 24,
            "train__eval_every_steps": 8,
            "train__read_threads": 0,
            "pause": 0.05,
        } | options
        devices = {"JAX_NUM_CPU_DEVICES": str(jax.device_count() // options.get("hosts", 1))}
        self.process = subprocess.Popen(
            [sys.executable, str(TOY), str(workdir), *(f"{k}={v}" for k, v in given.items())],
            env=os.environ | devices | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, happened, secs=120.0):
        end = time.monotonic() + secs
        while not happened():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end, "it never happened"
            time.sleep(0.0005)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def lines(self):
        return len(logs.read(self.workdir))

    def committed(self, step):
        return (self.workdir / ckpt.CHECKPOINT_DIR / str(step)).exists()

    def writing(self):
        directory = self.workdir / ckpt.CHECKPOINT_DIR
        return directory.exists() and any("tmp" in path.name for path in directory.iterdir())


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(unbroken, tmp_path, compiled_once):
    # Before there is any checkpoint; then while one is written; then between two.
    program = Program(tmp_path, compiled_once)
    program.wait_for(lambda: program.lines() >= 1)
    program.kill()

    for _ in range(5):
        program = Program(tmp_path, compiled_once)
        program.wait_for(program.writing)
        program.kill()
        if program.writing():
            break
    assert program.writing(), "the kill never hit a checkpoint while it was written"
    assert not program.committed(24)

    program = Program(tmp_path, compiled_once)
    program.wait_for(lambda: program.committed(15))
    program.kill()

    # The file of metrics is another one when the run goes on: it was cut back to step 15.
    before = (tmp_path / logs.METRICS_FILE).stat().st_ino
    program = Program(tmp_path, compiled_once)
    program.wait_for(lambda: (tmp_path / logs.METRICS_FILE).stat().st_ino != before)
    program.wait_for(lambda: any(line["step"] == 16 for line in logs.read(tmp_path)))
    program.process.send_signal(signal.SIGTERM)
    output = program.process.communicate(timeout=60)[0]
    assert program.process.returncode == 0, output
    assert "interrupted=True" in output
    assert "run the same command to go on" in output

    program = Program(tmp_path, compiled_once, pause=0)
    output = program.process.communicate(timeout=120)[0]
    assert program.process.returncode == 0, output
    assert "steps=24 interrupted=False" in output
    assert not program.writing()
    assert_same_run(tmp_path, run(tmp_path), unbroken)


def hosts(workdir, environment, **options):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        options |= {"hosts": 2, "address": f"localhost:{free.getsockname()[1]}"}
    return [Program(workdir, environment, host=host, **options) for host in (0, 1)]


def finish(programs):
    outputs = [program.process.communicate(timeout=120)[0] for program in programs]
    for program, output in zip(programs, outputs, strict=True):
        assert program.process.returncode == 0, output
    return outputs


@pytest.mark.slow
def test_two_hosts_stop_together_and_another_number_goes_on(unbroken, tmp_path, compiled_once):
    """A signal to one host stops both at one step; the same, and then one host, go on."""
    programs = hosts(tmp_path, compiled_once, pause=0.1, train__steps=24)
    programs[1].wait_for(lambda: programs[1].lines() >= 1)
    programs[1].process.send_signal(signal.SIGTERM)
    outputs = finish(programs)
    assert all("interrupted=True" in output for output in outputs), outputs
    stopped = checkpoints(tmp_path)[-1]
    assert 5 <= stopped < 24
    assert all(f"steps={stopped} " in output for output in outputs)

    workdir, expected = unbroken
    shutil.copytree(tmp_path, tmp_path / "one")
    assert_close_run(tmp_path / "one", run(tmp_path / "one"), workdir, expected)
    outputs = finish(hosts(tmp_path, compiled_once, pause=0))
    assert all("steps=24 interrupted=False" in output for output in outputs)
    assert_close_run(tmp_path, run(tmp_path), workdir, expected)


@pytest.mark.slow
def test_a_lost_host_ends_the_other_and_both_go_on(unbroken, tmp_path, compiled_once):
    programs = hosts(tmp_path, compiled_once, pause=0.1, train__steps=24)
    programs[0].wait_for(lambda: programs[0].committed(10))
    programs[1].kill()
    output = programs[0].process.communicate(timeout=240)[0]
    assert programs[0].process.returncode != 0, output
    outputs = finish(hosts(tmp_path, compiled_once, pause=0))
    assert all("steps=24 interrupted=False" in output for output in outputs)
    assert "going on from checkpoint 1" in outputs[0]
    workdir, expected = unbroken
    assert_close_run(tmp_path, run(tmp_path), workdir, expected)


def test_nan_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match=r"'loss' became nan in update 13.*batch 12"):
        run(tmp_path, toy_task.ToyTask(explode_at=12))
    assert checkpoints(tmp_path)[-1] == 10
    assert all(line["step"] <= 13 for line in logs.read(tmp_path))
    state = run(tmp_path, train__steps=10).state
    assert all(np.isfinite(leaf).all() for leaf in toy_task.leaves(state).values())


def test_nan_in_the_update_of_a_checkpoint_is_never_saved(tmp_path):
    """Metrics come one update late, yet a checkpoint waits for those of its own update."""
    with pytest.raises(FloatingPointError, match="update 10"):
        run(tmp_path, toy_task.ToyTask(explode_at=9), train__eval_every_steps=0)
    assert checkpoints(tmp_path) == [5]


def run_scripted(workdir, monkeypatch, values, **options):
    values = iter(values)
    evaluate = toy_task.metrics.evaluate_predictions
    with monkeypatch.context() as patch:
        patch.setattr(
            toy_task.metrics,
            "evaluate_predictions",
            # 90 examples are ``valid``; ``test`` keeps its own.
            lambda label, *a, **k: (
                {"auc": next(values)} if len(label) == 90 else evaluate(label, *a, **k)
            ),
        )
        return run(workdir, train__eval_every_steps=4, **options)


def test_early_stopping_and_the_best_state(tmp_path, monkeypatch):
    values = [0.6, 0.8, 0.7, float("nan"), 0.81, 0.9]
    options = {"train__early_stop_evals": 2, "checkpoint__keep": 1}
    result = run_scripted(tmp_path, monkeypatch, values, **options)
    assert result.stopped_early
    assert (result.steps, result.state_step) == (16, 8)
    assert int(result.state["step"]) == 8
    assert checkpoints(tmp_path) == [8, 16]
    assert [line["auc"] for line in logs.read(tmp_path) if line["kind"] == "valid"] == [
        0.6,
        0.8,
        0.7,
        None,
    ]
    # It stays ended; the last state is there for who asks for it.
    again = run_scripted(tmp_path, monkeypatch, [0.1] * 9, **options)
    assert (again.steps, again.state_step, again.stopped_early) == (16, 8, True)
    last = run_scripted(tmp_path, monkeypatch, [0.1] * 9, **options, checkpoint__restore_best=False)
    assert int(last.state["step"]) == last.state_step == 16


def test_the_smallest_may_be_the_best(tmp_path, monkeypatch):
    values = [0.6, 0.8, 0.5, 0.7, 0.7, 0.7, 0.7]
    result = run_scripted(tmp_path, monkeypatch, values, checkpoint__best_mode="min")
    assert (result.steps, result.state_step) == (24, 12)


def test_a_damaged_best_state_is_named(tmp_path, monkeypatch):
    run_scripted(tmp_path, monkeypatch, [0.9] + [0.1] * 9)
    assert checkpoints(tmp_path) == [4, 20, 24]
    for path in (tmp_path / ckpt.CHECKPOINT_DIR / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"checkpoint 4 in .* cannot be read"):
        run_scripted(tmp_path, monkeypatch, [0.1] * 9)
    last = run_scripted(tmp_path, monkeypatch, [0.1] * 9, checkpoint__restore_best=False)
    assert last.state_step == 24


def test_rhythm(tmp_path):
    """0 means: only at the end, and at each evaluation that is the best so far."""
    options = {"checkpoint__keep": 99, "train__steps": 12, "checkpoint__best_metric": ""}
    run(tmp_path / "a", **options, train__checkpoint_every_steps=0, train__eval_every_steps=0)
    assert checkpoints(tmp_path / "a") == [12]
    evaluated = [line["step"] for line in logs.read(tmp_path / "a") if line["kind"] == "valid"]
    assert evaluated == [12]
    run(tmp_path / "b", **options, train__checkpoint_every_steps=9, train__eval_every_steps=5)
    assert checkpoints(tmp_path / "b") == [9, 12]
    evaluated = [line["step"] for line in logs.read(tmp_path / "b") if line["kind"] == "valid"]
    assert evaluated == [5, 10, 12]


def test_metrics_are_fetched_one_step_late(tmp_path, monkeypatch):
    events = []
    call, unpack = TrainStep.__call__, TrainStep.unpack

    def called(self, *arguments):
        events.append("update")
        return call(self, *arguments)

    def unpacked(self, packed):
        events.append("metrics")
        return unpack(self, packed)

    monkeypatch.setattr(TrainStep, "__call__", called)
    monkeypatch.setattr(TrainStep, "unpack", unpacked)
    run(tmp_path, train__steps=4, train__eval_every_steps=0, train__checkpoint_every_steps=0)
    one = ["update", "metrics"]
    assert events == ["update", *one, *one, *one, "metrics"]


def test_nothing_is_copied_to_the_devices_in_passing(tmp_path, monkeypatch):
    """The transfer guard is on: host arrays that were not placed are refused."""
    monkeypatch.setattr(loop.BatchPlacer, "__call__", lambda self, batch: dict(batch))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(tmp_path, train__steps=2)


def test_mistakes_are_found_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainStep, "__call__", explode)
    with pytest.raises(ValueError, match="best_metric is 'vaild/auc'"):
        run(tmp_path, checkpoint__best_metric="vaild/auc")
    with pytest.raises(ValueError, match="during training: valid"):
        run(tmp_path, checkpoint__best_metric="test/auc")
    with pytest.raises(ValueError, match="batch_size 12 does not divide over 8 devices"):
        run(tmp_path, train__batch_size=12)
    source = BatchSource(toy_task.columns(20), 12, shuffle=False)
    config = short_config()
    train = BatchSource(toy_task.columns(20), 16)
    with pytest.raises(ValueError, match="evaluator 'odd': batch_size 12"):
        loop.fit(toy_task.ToyTask(), train, {"odd": toy_task.evaluator(source)}, config, tmp_path)
    with pytest.raises(ValueError, match="serves batches of 8"):
        loop.fit(toy_task.ToyTask(), BatchSource(toy_task.columns(20), 8), {}, config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def short_config():
    return FitConfig(
        TrainConfig(batch_size=16, steps=2),
        log=logs.LogConfig(progress=False, tensorboard=False, sharding_table=False),
    )


def test_a_table_that_does_not_fit_leaves_the_directory_as_it_was(tmp_path):
    """What the user changes then is no other configuration of a run that never began."""

    class Odd(toy_task.ToyTask):
        def init(self, key):
            made = super().init(key)
            made["params"]["tables"]["embedding"] = jnp.zeros((63, toy_task.WIDTH))
            return made

    with pytest.raises(ValueError, match="pad 63 to a multiple"):
        run(tmp_path, Odd())
    assert list(tmp_path.iterdir()) == []
    run(tmp_path, train__steps=1)
    with pytest.raises(ValueError, match="pad 63 to a multiple"):
        run(tmp_path, Odd(), restart=True)
    assert checkpoints(tmp_path) == [1]


def test_a_metric_that_is_not_evaluated_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'valid/aucc' is not evaluated; there are: .*valid/auc"):
        run(tmp_path, checkpoint__best_metric="valid/aucc", train__eval_every_steps=1)


def test_a_run_without_evaluators(tmp_path):
    train = BatchSource(toy_task.columns(20), 16)
    result = loop.fit(toy_task.ToyTask(), train, {}, short_config(), tmp_path)
    assert (result.steps, result.evals) == (2, {})
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["config"]["train"]["steps"] == 2
    assert record["devices"]["count"] == 8
    assert record["versions"]["jax"] == jax.__version__


def test_a_profile_of_a_few_steps(tmp_path):
    run(tmp_path, train__steps=4, log__profile_start_step=1, log__profile_stop_step=3)
    assert list((tmp_path / logs.PROFILE_DIR).rglob("*.xplane.pb"))


def test_nothing_is_left_running(tmp_path, monkeypatch):
    run(tmp_path / "first", train__steps=2)
    before = threading.active_count()
    stop_at(monkeypatch, 2)
    assert run(tmp_path / "second").interrupted
    end = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.05)
    assert threading.active_count() <= before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
