import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_task

from umair_jax.training import checkpoints as ckpt
from umair_jax.training.claim import LOCK_FILE, claimed

pytestmark = pytest.mark.usefixtures("compiled_once")

TOY = Path(__file__).with_name("toy_task.py")
# Python ignores the signal that comes with it: a write raises OSError, as on a disk without space.
FULL = f"""
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
runpy.run_path({str(TOY)!r}, run_name="__main__")
"""
HOLDER = """
import sys
from pathlib import Path
from umair_jax.training.claim import claimed
with claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_and_told_by_whom(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"mine\n"
    with pytest.raises(ValueError, match=rf"another run is at work there \(process {holder.pid} "):
        toy_task.run(tmp_path, train__steps=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE]
    # Killed, it has nothing to tidy up.
    holder.kill()
    holder.wait()
    assert toy_task.run(tmp_path, train__steps=4).steps == 4


def test_a_run_frees_its_folder_when_it_ends_and_when_it_fails(tmp_path):
    toy_task.run(tmp_path, train__steps=4)
    with claimed(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} on"):
        toy_task.run(tmp_path, train__steps=4)
    failing = tmp_path / "failing"
    with pytest.raises(FloatingPointError):
        toy_task.run(failing, toy_task.ToyTask(explode_at=2), train__steps=8)
    with claimed(failing):
        pass


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ValueError, match=r"cannot be written to .*choose another --workdir"):
        toy_task.run(tmp_path / "file" / "run", train__steps=4)


def test_a_clock_that_runs_backwards_changes_nothing(tmp_path, monkeypatch):
    options = {"train__steps": 20, "optim__schedule": "constant", "log__tensorboard": True}
    whole = toy_task.run(tmp_path / "whole", **options)
    toy_task.run(tmp_path / "parts", **(options | {"train__steps": 10}))
    # A day back, and from then on backwards in leaps.
    now, leap = time.time() - 86_400, iter(range(0, 10**9, 977))
    monkeypatch.setattr(time, "time", lambda: now - next(leap))
    parts = toy_task.run(tmp_path / "parts", **options)
    assert parts.state_step == whole.state_step
    assert parts.examples_per_second < 1e7
    left, right = toy_task.leaves(parts.state), toy_task.leaves(whole.state)
    assert all((left[name] == right[name]).all() for name in right)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, compiled_once):
    run, whole = tmp_path / "run", tmp_path / "whole"
    toy_task.run(run, train__steps=5)
    shutil.copytree(run, whole)
    told = subprocess.run(
        [sys.executable, "-c", FULL, str(run), "train__steps=10"],
        env=os.environ | compiled_once | {"JAX_COMPILATION_CACHE_DIR": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert told.returncode != 0
    assert "File too large" in told.stdout + told.stderr
    committed = run / ckpt.CHECKPOINT_DIR
    assert [path.name for path in committed.iterdir() if path.name.isdecimal()] == ["5"]
    left, right = (
        toy_task.leaves(toy_task.run(folder, train__steps=10).state) for folder in (run, whole)
    )
    assert all((left[name] == right[name]).all() for name in right)
