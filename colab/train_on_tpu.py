# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training on several devices: TPU, GPUs, or a CPU that plays several
# The mesh and where each array lives, what an update costs, a profile, and a run that is
# interrupted and goes on. Bookmarks are simulated.
#
# The first cell installs the package where it is missing; on your own machine it does nothing else.
# On Colab give it the address that the repository is cloned from, or a folder with it. If an import
# fails afterwards, restart the runtime once: something older had been loaded before.

# %%
# @title Install { display-mode: "form" }
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # @param {type:"string"}


def is_repository(folder):
    """Whether a folder holds this repository."""
    return (folder / "umair_jax" / "train.py").exists() and (folder / "configs").is_dir()


needed = ("umair_jax", "jax", "flax", "grain", "ml_collections", "array_record")
if any(importlib.util.find_spec(name) is None for name in needed):
    places = (Path.cwd(), *Path.cwd().parents, Path.cwd() / "repository")
    folder = next(filter(is_repository, places), Path(REPOSITORY))
    if not REPOSITORY and not is_repository(folder):
        raise ValueError(
            "REPOSITORY: got nothing; expected the address that the repository is cloned from, or "
            "a folder with it; fill it in at the top of this cell"
        )
    if not is_repository(folder):
        folder = Path.cwd() / "repository"
        subprocess.run(["git", "clone", "--depth=1", REPOSITORY, str(folder)], check=True)
    tpu = any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    extra = "[tpu]" if tpu else "[cuda]" if shutil.which("nvidia-smi") else ""
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--editable", f"{folder.resolve()}{extra}"], check=True)
    sys.path.insert(0, str(folder.resolve()))
    importlib.invalidate_caches()

ROOT = Path(importlib.util.find_spec("umair_jax").origin).parents[1]
sys.path.insert(0, str(ROOT))  # where configs/ is
if Path.cwd() == ROOT / "colab":
    os.chdir(ROOT)  # data/ and runs/ are then those of the command line
print("umair_jax is installed.")

# %% [markdown]
# ## Settings

# %%
EPOCHS = 3
MODEL_DEVICES = 2  # devices along the mesh's second axis; the others go along the batch
CPU_DEVICES = 4  # how many devices a CPU is made to look like

# The tests run this notebook at a toy size, where its numbers mean nothing.
SMALL = os.environ.get("UMAIR_NOTEBOOK_SMALL") == "1"

# %% [markdown]
# ## Devices
# On a TPU or on GPUs these are the ones that are there. A CPU is made to look like several devices,
# so that everything below happens here as well; that has to be said before JAX looks for devices.
# They share the same cores, so it is no faster.

# %%
os.environ["JAX_NUM_CPU_DEVICES"] = str(CPU_DEVICES)

import jax

devices = jax.devices()
for device in devices:
    memory = (device.memory_stats() or {}).get("bytes_limit")
    said = f", {memory / 2**30:.1f} GiB" if memory else ""
    print(f"{device.id}: {device.platform.upper()}, {device.device_kind}{said}")
if len(devices) % MODEL_DEVICES:
    print(f"{len(devices)} do not divide by {MODEL_DEVICES}: all of them go along the batch.")
    MODEL_DEVICES = 1

# %% [markdown]
# ## The mesh
# `config.mesh.data` devices along the batch (-1: all that are left), times `config.mesh.model`
# further ones. `config.mesh.rules` are pairs of a regular expression for paths of the training
# state and axes of the mesh; the first match decides. As they come, they spread the rows of all
# tables over every device, and keep a copy of all else on each.

# %%
from absl import logging
from rich.console import Console

from configs import base, smoke
from umair_jax.training.sharding import MeshConfig, make_mesh

logging.set_verbosity(logging.ERROR)  # libraries report every file that they touch
config = smoke.get_config() if SMALL else base.get_config()
if SMALL:
    config.train.steps, config.train.batch_size = 16, 64
    config.train.log_every_steps = 4
    config.train.eval_every_steps = config.train.checkpoint_every_steps = 8
else:
    config.train.epochs = float(EPOCHS)
config.mesh.model = MODEL_DEVICES

mesh = make_mesh(MeshConfig(data=config.mesh.data, model=config.mesh.model))
print(" x ".join(f"{axis} {size}" for axis, size in mesh.shape.items()))
for k, line in enumerate(mesh.devices):
    print(
        f"examples, part {k + 1} of {len(mesh.devices)}: devices",
        ", ".join(str(device.id) for device in line),
    )
print("\nrules:")
for pattern, axes in config.mesh.rules:
    print(f"  {pattern!r:28} {axes if axes else 'a copy on every device'}")

# %% [markdown]
# ## Where every array lives
# The sharding table comes before anything is allocated: shapes first, then places, then arrays that
# are made where they will live.
#
# This run is **interrupted on purpose**: a second thread presses Ctrl-C once the first training
# report is written, as the stop button would, or SIGTERM on a machine that is taken away. The
# update is finished, a checkpoint saved, and the call returns.

# %%
import functools
import shutil
import signal
import threading
import time

from umair_jax.jobs import bookmarks
from umair_jax.train import train
from umair_jax.training import logs

console = Console(force_jupyter=False, force_terminal=False, color_system=None, width=100)
loaded = bookmarks.load(config, console)
assemble = functools.partial(bookmarks.assemble, loaded=loaded)
workdir = Path("runs/train_on_tpu_small" if SMALL else f"runs/train_on_tpu_{EPOCHS}_epochs")
shutil.rmtree(workdir, ignore_errors=True)
training = threading.Event()


def press_stop():
    """Presses Ctrl-C when the run has reported once."""
    while training.is_set() and not logs.read(workdir):
        time.sleep(0.01)
    if training.is_set():
        os.kill(os.getpid(), signal.SIGINT)


training.set()
presser = threading.Thread(target=press_stop)
presser.start()
try:
    print(train(config, workdir, console=console, assemble=assemble))
finally:
    training.clear()
    presser.join()

# %% [markdown]
# ## Going on
# The same call goes on from the checkpoint. A batch is a function of the seed and its number alone,
# so the position in the data is one integer: on the same mesh the rest of the run is, bit for bit,
# what it would have been. On another number of devices the batches are the same ones in the same
# order.
#
# From here on the run also says what an update costs (`log.cost`): operations, bytes, what goes
# between devices, and at the end how near to the machine's limit it came. `log.profile_*` names the
# updates that `jax.profiler` traces.

# %%
steps = bookmarks.assemble(config, console, loaded).fit.train.total_steps(
    len(loaded.data.rows("train"))
)
config.log.sharding_table = False
config.log.cost = True
config.log.profile_start_step, config.log.profile_stop_step = steps // 2, steps // 2 + 3
summary = train(config, workdir, console=console, assemble=assemble)

# %% [markdown]
# What `metrics.jsonl` kept of the cost. *Share of the roofline*: how near an update came to what
# this device reaches in a large matrix product or, where it moves many bytes for each operation, in
# a copy.

# %%
cost = next(line for line in reversed(logs.read(workdir)) if line["kind"] == "cost")
for name, value in cost.items():
    if name not in ("step", "kind"):
        print(f"{name:24}{value:>18,.4g}")

# %% [markdown]
# ## The profile
# A trace is in the run's folder: TensorBoard shows it with the package
# `tensorboard-plugin-profile`, <https://ui.perfetto.dev> as it is. Its events can also be summed up
# here.

# %%
import gzip
import json
from collections import Counter

trace = max((workdir / "profile").rglob("*.trace.json.gz"))
spent = Counter()
for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]:
    # Operations of XLA; events of Python and of the host's runtime are in the trace as well.
    said = event.get("args", {})
    if "hlo_op" in said or "hlo_category" in said:
        spent[event["name"].rstrip("0123456789").rstrip(".")] += event["dur"]
total = sum(spent.values())
print(f"{trace.stat().st_size / 1e6:.1f} MB; share of the time of XLA's operations:")
for operation, microseconds in spent.most_common(8):
    print(f"{operation:60.60}{microseconds / total:8.1%}")

# %% [markdown]
# ## Several machines
# Every process runs the same command with its place: `launch/local_hosts.py` for processes on one
# machine, `launch/tpu_vm.sh` for TPU VMs, others for Slurm, GKE and GPUs. `docs/scale.md` has all
# of it.
