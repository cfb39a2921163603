"""Nothing is fetched and nothing is unpickled when the main job runs; versions are pinned."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_train import SIZES

ROOT = Path(__file__).parents[1]

# The front door as `python -m` runs it, in a process that can open no connection and no pickle.
CLOSED = """
import pickle, runpy, socket, sys

def refuse(what):
    def refused(*args, **kwargs):
        raise AssertionError(f"{what}: {args[1:2]}")
    return refused

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse(f"socket.{name}"))
socket.getaddrinfo = socket.create_connection = refuse("look-up of a name")
pickle.load = pickle.loads = pickle.Unpickler = refuse("pickle")
runpy.run_module("umair_jax.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_the_main_job_without_network_and_pickles(tmp_path, compiled_once):
    options = SIZES | {
        "data.limit": 60,
        "data.root": tmp_path / "data",
        "train.steps": 6,
        "train.batch_size": 64,
        "log.sharding_table": False,
        "log.tensorboard": False,  # its writer has a queue that pickles, within the process
    }
    command = [sys.executable, "-c", CLOSED, "--config=configs/smoke.py"]
    command += [f"--config.{name}={value}" for name, value in options.items()]
    for again in ("", " from its checkpoint"):
        told = subprocess.run(
            [*command, f"--workdir={tmp_path / 'run'}"],
            cwd=ROOT,
            env=os.environ | compiled_once | {"JAX_NUM_CPU_DEVICES": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert told.returncode == 0, again + told.stdout + told.stderr
    assert "going on from checkpoint 6" in told.stdout
    assert (tmp_path / "run" / "summary.json").exists()


def test_the_closed_process_is_closed():
    opened = CLOSED.replace("runpy.run_module", "0 and runpy.run_module")
    for line in (
        "socket.create_connection(('localhost', 9))",
        "socket.socket().connect(('localhost', 9))",
        "pickle.loads(pickle.dumps(1))",
    ):
        told = subprocess.run(
            [sys.executable, "-c", opened + line], capture_output=True, text=True, check=False
        )
        assert "AssertionError" in told.stderr, line


def test_no_module_reads_pickles():
    for path in sorted((ROOT / "umair_jax").rglob("*.py")):
        text = path.read_text("utf-8")
        assert not re.search(r"^\s*(import|from) (pickle|dill|joblib|shelve)\b", text, re.M), path
        assert "allow_pickle=True" not in text, path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path
        for call in re.findall(r"np\.load\([^)]*\)", text):
            assert "allow_pickle=False" in call, path


def test_every_dependency_is_pinned_and_no_host_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (ROOT / "constraints.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+( ?; .*)?", line) for line in lines)
    assert "://" not in text
    pinned = {re.split(r"==", line)[0].lower().replace("_", "-") for line in lines}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=;]", each)[0].lower().replace("_", "-") for each in wanted}
    assert names <= pinned
