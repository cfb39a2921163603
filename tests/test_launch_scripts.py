"""The scripts of launch/: checked as shell, and what they would run."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])


def dry(script, *arguments):
    """The commands that a script would run, as lists of words."""
    told = subprocess.run(
        ["bash", str(LAUNCH / script), *arguments], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    return [shlex.split(line) for line in told.stdout.splitlines()]


def refusal(script, *arguments):
    told = subprocess.run(
        ["bash", str(LAUNCH / script), *arguments], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    return told.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script):
    program = shutil.which("shellcheck", path=Path(sys.executable).parent)
    assert program, "shellcheck is not there; install the extra `dev`"
    told = subprocess.run([program, str(script)], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


def test_all_scripts_are_looked_at():
    assert [path.name for path in SCRIPTS] == ["gpu.sh", "slurm.sbatch", "tpu_vm.sh"]
    assert all(os.access(path, os.X_OK) for path in SCRIPTS if path.suffix == ".sh")


def test_slurm_starts_every_task_with_its_cluster():
    (command,) = dry("slurm.sbatch", "--dry-run", "--config=a b.py", "--config.seed=1")
    assert command[0] == "srun"
    assert command[-5:] == [
        *("-m", "umair_jax.train"),
        *("--config=a b.py", "--config.seed=1", "--config.hosts.cluster=slurm"),
    ]


def test_gpu_machines():
    (alone,) = dry("gpu.sh", "--dry-run", "--config=a.py")
    assert alone == [".venv/bin/python", "-m", "umair_jax.train", "--config=a.py"]
    place = ("--hosts=2", "--host=1", "--coordinator=10.0.0.1:99")
    (second,) = dry("gpu.sh", "--dry-run", *place, "--", "--config=a.py")
    assert second[3:] == [
        "--config=a.py",
        "--config.hosts.coordinator=10.0.0.1:99",
        "--config.hosts.processes=2",
        "--config.hosts.process=1",
    ]
    assert "needs --coordinator" in refusal("gpu.sh", "--hosts=2", "--", "--config=a.py")


def test_tpu_vms():
    where = ("--dry-run", "--name=t", "--zone=z")
    (create,) = dry("tpu_vm.sh", "create", *where, "--type=v6e-8")
    assert create[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "create", "t"]
    assert "--accelerator-type=v6e-8" in create
    archive, copy, install = dry("tpu_vm.sh", "install", *where)
    assert archive[:2] == ["git", "archive"]
    assert copy[4] == "scp"
    assert "--worker=all" in install
    assert ".venv/bin/pip install -c constraints.txt -e '.[tpu]'" in install[-1]
    (train,) = dry("tpu_vm.sh", "train", *where, "--", "--config=a b.py")
    words = shlex.split(train[-1].removeprefix("--command="))
    assert words[-2:] == ["--config=a b.py", "--config.hosts.cluster=auto"]
    (plain,) = dry("tpu_vm.sh", "train", *where)
    words = shlex.split(plain[-1].removeprefix("--command="))
    assert words[-2:] == ["umair_jax.train", "--config.hosts.cluster=auto"]
    (delete,) = dry("tpu_vm.sh", "delete", *where)
    assert delete[4:6] == ["delete", "t"]
    assert "expected create, install, train or delete" in refusal("tpu_vm.sh", "stop", *where)
    assert "no --name or --zone" in refusal("tpu_vm.sh", "train", "--name=t")
    assert "got --tpye=v6e-8" in refusal("tpu_vm.sh", "create", *where, "--tpye=v6e-8")


def test_the_job_set_has_as_many_pods_as_its_topology_has_hosts():
    job_set = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text("utf-8"))
    assert job_set["kind"] == "JobSet"
    (job,) = job_set["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    rows, columns = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == int(rows) * int(columns) // chips
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    folders = [word for word in container["command"] if "=/" in word]
    assert len(folders) == 2
    assert all(word.split("=")[1].startswith(mounts["shared"]) for word in folders)
