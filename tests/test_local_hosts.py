"""launch/local_hosts.py, and with it the main job on several processes from end to end."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_train import SIZES

from umair_jax.data import feature_bank

ROOT = Path(__file__).parents[1]
LAUNCHER = ROOT / "launch" / "local_hosts.py"
# Sums in another order are no more than that: Adam would make 1e-3 of it in twenty updates.
SMALL = SIZES | {
    "data.limit": 60,
    "extract.shard_items": 16,
    "train.batch_size": 64,
    "train.steps": 12,
    "train.log_every_steps": 1,
    "train.eval_every_steps": 6,
    "train.checkpoint_every_steps": 6,
    "optim.name": "sgd",
    "optim.learning_rate": 0.05,
    "optim.weight_decay": 0.0,
    "log.sharding_table": False,
    "log.tensorboard": False,
}


@pytest.fixture(scope="module")
def launcher():
    spec = importlib.util.spec_from_file_location("local_hosts", LAUNCHER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(processes, devices, root, workdir, environment, **more):
    given = {**SMALL, "data.root": root, **more}
    return subprocess.Popen(
        [
            *(sys.executable, str(LAUNCHER)),
            *(f"--processes={processes}", f"--devices={devices}", "--"),
            *("--config=configs/smoke.py", f"--workdir={workdir}", "--interrupted_status=75"),
            *(f"--config.{name}={value}" for name, value in given.items()),
        ],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, seconds=300, code=0):
    output = process.communicate(timeout=seconds)[0]
    assert process.returncode == code, output
    return output


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_one_two_and_four_processes_are_the_same_run(tmp_path, compiled_once):
    """Data, vectors, loss curve and evaluation, on four devices each time."""
    outputs = {}
    for processes, root in ((1, "one"), (2, "many"), (4, "many")):
        workdir = tmp_path / f"run{processes}"
        began = start(processes, 4 // processes, tmp_path / root, workdir, compiled_once)
        outputs[processes] = finish(began)

    for processes in (2, 4):
        one, many = lines(tmp_path / "run1"), lines(tmp_path / f"run{processes}")
        assert len([line for line in one if line["kind"] == "train"]) == 12
        assert len(many) == len(one)
        for mine, other in zip(many, one, strict=True):
            assert mine.pop("kind") == (kind := other.pop("kind"))
            assert mine == pytest.approx(other, rel=1e-6, abs=1e-6), kind
        # One process speaks, and writes.
        assert "[1] step" not in outputs[processes]
        assert "[0] step 12/12" in outputs[processes]
        config = json.loads((tmp_path / f"run{processes}" / "config.json").read_text())
        assert config["devices"]["count"] == 4
        assert config["devices"]["hosts"] == processes

    # Two processes each encoded half of the shards.
    (whole,) = (tmp_path / "one" / "banks").iterdir()
    (shared,) = (tmp_path / "many" / "banks").iterdir()
    assert len([*shared.glob("shard-*")]) == 4
    assert not list(tmp_path.rglob(".host-*"))
    whole, shared = feature_bank.load(whole), feature_bank.load(shared)
    for name in ("content", "style", "text", "has_image", "has_text"):
        np.testing.assert_allclose(getattr(shared, name), getattr(whole, name), atol=1e-5)

    files = [np.load(tmp_path / f"run{n}" / "test_predictions.npz") for n in (1, 2, 4)]
    for name in files[0].files:
        for other in files[1:]:
            np.testing.assert_allclose(other[name], files[0][name], atol=1e-6)


@pytest.mark.slow
def test_a_signal_stops_all_and_the_same_line_goes_on(tmp_path, compiled_once):
    root, workdir = tmp_path / "data", tmp_path / "run"
    many = {"train.steps": 2000, "train.checkpoint_every_steps": 500, "train.eval_every_steps": 0}
    process = start(2, 1, root, workdir, compiled_once, **many)
    end = time.monotonic() + 240
    while not (workdir / "metrics.jsonl").exists() or not lines(workdir):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=75)
    assert "run the same command to go on" in output
    (saved,) = (int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())
    assert 0 < saved < 2000
    fewer = many | {"train.steps": saved + 5}
    output = finish(start(2, 1, root, workdir, compiled_once, **fewer))
    assert f"going on from checkpoint {saved}" in output
    assert json.loads((workdir / "summary.json").read_text())["steps"] == saved + 5


def test_a_dry_run_prints_commands_and_starts_nothing(launcher, capsys):
    words = ["--processes=2", "--devices=3", "--port=777", "--dry-run", "--", "--config=my file.py"]
    assert launcher.main(words) == 0
    found = capsys.readouterr().out.splitlines()
    assert len(found) == 2
    assert found[1] == (
        f"JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=3 {sys.executable} -m umair_jax.train "
        "'--config=my file.py' --config.hosts.coordinator=127.0.0.1:777 "
        "--config.hosts.processes=2 --config.hosts.process=1 --config.hosts.local=True"
    )


def test_gpus_are_shared_out(launcher, capsys):
    launcher.main(["--processes=2", "--gpus=4", "--dry-run", "--"])
    found = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in found] == [
        "CUDA_VISIBLE_DEVICES=0,1",
        "CUDA_VISIBLE_DEVICES=2,3",
    ]
    with pytest.raises(SystemExit):
        launcher.main(["--processes=2", "--gpus=3", "--dry-run"])
    assert "got 3, which 2 cannot share equally" in capsys.readouterr().err


def test_one_that_fails_ends_the_others(launcher, capfd, monkeypatch):
    monkeypatch.setattr(launcher, "ALONE", 0.2)
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    fail = [sys.executable, "-c", "print('no'); raise SystemExit(3)"]
    began = time.monotonic()
    assert launcher.run([({}, wait), ({}, fail)]) == 3
    assert time.monotonic() - began < 60
    assert "[1] no" in capfd.readouterr().out
