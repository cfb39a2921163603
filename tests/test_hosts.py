import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from umair_jax import hosts
from umair_jax.hosts import HostsConfig

PROGRAM = Path(__file__).with_name("hosts_program.py")


def free_port():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What three processes print, by line."""
    folder, place = tmp_path_factory.mktemp("hosts"), f"3@127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), f"{number}/{place}", str(folder)],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(3)
    ]
    said = [process.communicate(timeout=180)[0] for process in started]
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text
    return [[line for line in text.splitlines() if not line.startswith("[Gloo]")] for text in said]


def test_what_differs_between_hosts_is_named_with_them(outputs):
    name = socket.gethostname()
    for lines in outputs:
        assert lines[0] == (
            "ValueError: tea: got different ones, expected the same everywhere: process 0 on "
            f"{name}: black; process 1 on {name}: green; process 2 on {name}: green"
        )


def test_hosts_with_one_folder_are_a_team(outputs):
    found = [lines[1] for lines in outputs]
    assert found == [
        "Team(members=(0, 2), index=0)",
        "Team(members=(1,), index=0)",
        "Team(members=(0, 2), index=1)",
    ]


def test_a_folder_that_is_not_shared_is_refused_on_all_hosts(outputs):
    for number, others in enumerate((1, 0, 1)):
        line = outputs[number][2]
        assert line.startswith("ValueError: workdir: got ")
        assert f"which process {number} shares with {others} of 2 others" in line


def test_a_barrier_names_who_is_missing(outputs):
    for lines in outputs[:2]:
        assert lines[3] == (
            f"MissingHostError: tea time: after 2 s process 2 on {socket.gethostname()} has not "
            "come; 2 of 3 have. Look at its log; where the work takes longer, raise "
            "config.hosts.barrier_seconds"
        )
    assert len(outputs[2]) == 3


def test_a_single_process_needs_nobody(tmp_path):
    hosts.start(HostsConfig(), {})
    hosts.start(HostsConfig(processes=1, process=0), {})
    hosts.barrier("alone")
    hosts.agree("anything", "one")
    hosts.require_shared(tmp_path, "workdir")
    assert hosts.gather("alone", "one") == ["one"]
    assert hosts.team(tmp_path / "none") == hosts.Team((0,), 0)
    assert hosts.is_first()


def test_places_come_from_the_config_and_then_from_the_environment():
    told = {
        "JAX_COORDINATOR_ADDRESS": "node0:77",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "3",
    }
    assert hosts._place(HostsConfig(), told) == ("node0:77", 4, 3, None)
    assert hosts._place(HostsConfig("b:1", 2, 0), told) == ("b:1", 2, 0, None)
    assert hosts._place(HostsConfig(), {}) is None


@pytest.mark.parametrize(
    ("config", "told", "words"),
    [
        (HostsConfig("node0:77"), {}, "how many there are, and which one this is"),
        (HostsConfig(processes=2, process=0), {}, "got coordinator ''"),
        (HostsConfig("node0:77", 2, 2), {}, "process 2; expected"),
        (HostsConfig("node0:77", 2), {"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID: got 'one'"),
        (HostsConfig(cluster="slurm"), {}, "'slurm', but nothing of it is found here"),
    ],
)
def test_half_a_place_is_an_error(config, told, words, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=words):
        hosts.start(config, told)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.3.2.1"])
def test_a_loopback_coordinator_is_refused(host):
    with pytest.raises(ValueError, match=r"look for process 0 on their own.*local=True"):
        hosts.start(HostsConfig(f"{host}:77", 2, 0), {})


def test_slurm_says_everything(monkeypatch):
    said = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "gpu[03-06]",
        "SLURM_NTASKS": "8",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_NODES": "4",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    place = hosts._place(HostsConfig(cluster="slurm"), {})
    assert place == (f"gpu03:{65536 - 4096 + 7}", 8, 5, [1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": "cray"}, "cluster: got 'cray'; expected one of auto, slurm, ompi"),
        ({"coordinator": "node0"}, "expected host:port"),
        ({"barrier_seconds": 0}, "expected 1 or more"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        HostsConfig(**options)
