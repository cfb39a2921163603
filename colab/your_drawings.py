# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your drawings
# From a folder of pictures, tags and bookmarks to a trained ranker, a report, and recommendations
# that say why.
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
# On Colab, upload a folder in the Files panel, or mount a drive there, and name it here. Without a
# name the notebook makes a small example folder out of built-in drawings, with **simulated**
# bookmarks.

# %%
FOLDER = ""  # @param {type:"string"}
EPOCHS = 12
PEOPLE = 3  # whose recommendations are shown

# The tests run this notebook at a toy size, where its results mean nothing.
SMALL = os.environ.get("UMAIR_NOTEBOOK_SMALL") == "1"

# %% [markdown]
# ## The format
#
#     items.csv            illust_id,title,artist,tags
#                          cat-1,Sleeping cat,Mio,cat|animal|ink
#     images/              cat-1.png  (or .jpg, .webp, ...)
#     interactions.csv     user_id,illust_id,timestamp,label
#                          anna,cat-1,2025-03-01T12:00:00Z,1
#
# Parquet and JSON lines work as well. Only `illust_id`, and `user_id, illust_id, timestamp`, are
# needed; a log of bookmarks alone gets sampled negatives. docs/data.md has all columns.
#
# The example has three mistakes on purpose, to see what becomes of them: a broken picture, a time
# that is none, and a bookmark of a drawing that is not there.

# %%
import csv
from datetime import UTC, datetime

from umair_jax.data.report import Report
from umair_jax.data.simulate import SimulationConfig
from umair_jax.data.sources import open_source
from umair_jax.data.sources.openclipart import OpenClipart


def make_example(folder, drawings, users):
    """Writes items.csv, images/ and interactions.csv, with three mistakes."""
    source = OpenClipart(seed=1, config=SimulationConfig(users=users), limit=drawings)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with open(folder / "items.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["illust_id", "title", "artist", "tags", "published"])
        for item in source.items(Report()):
            tags = "|".join(item.tags)
            table.writerow([item.illust_id, item.title, item.artist, tags, item.published])
            picture = item.image if item.row > 1 else item.image[:50]  # a broken one
            (folder / "images" / f"{item.illust_id}.webp").write_bytes(picture)
    with open(folder / "interactions.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["user_id", "illust_id", "timestamp", "label"])
        for piece in source.interactions(Report()):
            for user, item, second, label in zip(
                piece.user_id.to_pylist(), piece.illust_id.to_pylist(),
                piece.timestamp.tolist(), piece.label.tolist(), strict=True,
            ):  # fmt: skip
                table.writerow([user, item, datetime.fromtimestamp(second, UTC).isoformat(), label])
        table.writerow([user, item, "yesterday", 1])  # a time that is none
        table.writerow([user, "lost-drawing", datetime.fromtimestamp(second, UTC).isoformat(), 1])


folder = Path(FOLDER or "runs/example_folder")
if not FOLDER:
    make_example(folder, drawings=60 if SMALL else 300, users=40 if SMALL else 120)
for path in sorted(folder.iterdir()):
    if path.is_dir():
        files = sorted(path.iterdir())
        print(f"{path.name}/: {len(files):,} files, the first {files[0].name}")
    else:
        print(f"{path.name}: {path.stat().st_size:,} bytes")
        if path.suffix in (".csv", ".jsonl"):
            for line in path.read_text("utf-8", "replace").splitlines()[:3]:
                print(f"    {line[:90]}")

# %% [markdown]
# ## The check
# Nothing is dropped in silence: what is wrong is counted, shown with its first examples, and
# written down. A run stops only when more than `config.data.max_bad_share` of a file is bad, and
# says which rows.

# %%
from rich.console import Console

from umair_jax.prepare import prepare

console = Console(force_jupyter=False, force_terminal=False, color_system=None, width=100)
shutil.rmtree("runs/checked_folder", ignore_errors=True)
report = prepare(open_source("folder", folder), "runs/checked_folder", console=console)

# %% [markdown]
# ## Training
# The main job with your folder as its source. Small logs want smaller batches and more epochs than
# the built-in one. Call it again to go on, or with other drawings under another `workdir`.

# %%
import functools

from absl import logging

from configs import base, smoke
from umair_jax.jobs import bookmarks
from umair_jax.train import train

logging.set_verbosity(logging.ERROR)  # libraries report every file that they touch
config = smoke.get_config() if SMALL else base.get_config()
config.data.source, config.data.path, config.data.limit = "folder", str(folder), 0
config.train.batch_size, config.train.log_every_steps = 128, 500
if not SMALL:
    config.train.epochs = float(EPOCHS)
config.log.sharding_table = False

workdir = f"runs/{folder.name}_small" if SMALL else f"runs/{folder.name}_{EPOCHS}_epochs"
quiet = Console(quiet=True)
loaded = bookmarks.load(config, quiet)
summary = train(
    config, workdir, console=console, assemble=functools.partial(bookmarks.assemble, loaded=loaded)
)

# %% [markdown]
# No *oracle* here: nobody knows the true probabilities behind a log in a file. *constant* is what
# one probability for everything reaches, the least that a model should beat. Nothing in a folder
# says that its bookmarks are simulated, so tables and report take them for real; those of the
# example are not.
#
# ## The report
# One page with curves, metrics, calibration, what people would be shown and why, and neighbours by
# style and content. It needs nothing else, not even a network: download it from the Files panel, or
# set `SHOW` to see it here.

# %%
from IPython.display import HTML, display

from umair_jax.report import report as write_report

SHOW = False

page = write_report(workdir, users=PEOPLE, console=quiet)
print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
if SHOW:
    import html

    text = html.escape(page.read_text("utf-8"))
    display(HTML(f'<iframe srcdoc="{text}" width="100%" height="800"></iframe>'))

# %% [markdown]
# ## Recommendations
# For a few people, at the moment of their first test example: the last drawings that they
# bookmarked before, and the most probable of all the others, with their probabilities. Below each
# the modality weights: how much ids and tags (*meta*), what is shown (*content*), how it is painted
# (*style*), and the words (*text*) count for this person and drawing.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib_inline.backend_inline import set_matplotlib_formats

from umair_jax import load_run
from umair_jax.data.images import BadImage, load_square
from umair_jax.reporting import people

# Small enough to be kept in the notebook.
set_matplotlib_formats("jpg", pil_kwargs={"quality": 88})
COLOURS = {"meta": "#bd6497", "content": "#0072b2", "style": "#dd8500", "text": "#009e73"}
BEFORE, BEST = 4, 5


def show(axes, row, below):
    """A drawing in axes of its own, grey where there is none, with a line of text below it."""
    try:
        axes.imshow(load_square(dataset.image_bytes(row), 112))
    except BadImage:
        axes.imshow(np.full((112, 112, 3), 225, np.uint8))
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(below, fontsize=8, labelpad=3)
    for side in axes.spines.values():
        side.set(color="0.75", linewidth=0.8)


def name_of(row, width=16):
    """Its title or id, cut to a width."""
    title = dataset.items.title[row] or dataset.items.illust_id[row]
    return textwrap.shorten(title, width, placeholder="…") or title[:width]


run = load_run.load(workdir, "best", quiet)
job, dataset = run.job, run.job.dataset
predicted = run.predict(job.evaluators()["test"].source)
found = [
    people.recommend(
        dataset, job.data, job.features, int(user), run.predict, job.eval.batch_size, predicted
    )
    for user in people.choose(job.data, PEOPLE)
]

columns = BEFORE + BEST + 1
figure, grid = plt.subplots(
    2 * len(found), columns, figsize=(1.3 * columns, 2.1 * len(found)), squeeze=False,
    gridspec_kw={"height_ratios": [1, 0.16] * len(found), "hspace": 0.5, "wspace": 0.12,
                 "width_ratios": [1] * BEFORE + [0.25] + [1] * BEST},
)  # fmt: skip
for axes in grid.flat:
    axes.set_axis_off()
for line, bars, person in zip(grid[::2], grid[1::2], found, strict=True):
    for axes, row in zip(line[:BEFORE], person.recent, strict=False):
        show(axes, row, name_of(row))
    picks = zip(line[BEFORE + 1 :], bars[BEFORE + 1 :], person.recommended, strict=False)
    for axes, bar, pick in picks:
        show(axes, pick.item, f"{name_of(pick.item, 12)}  {pick.probability:.2f}")
        start = 0.0
        for name, weight in zip(job.task.modality_names, pick.weights, strict=True):
            bar.barh(0, weight, left=start, color=COLOURS[name], label=name)
            start += weight
        bar.set_xlim(0, 1)
    line[0].set_title(f"{dataset.users.user_id[person.user]}: bookmarked before", fontsize=10,
                      loc="left")  # fmt: skip
    line[BEFORE + 1].set_title("recommended", fontsize=10, loc="left")
handles, labels = grid[1, BEFORE + 1].get_legend_handles_labels()
figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# The same for everybody, as a table: `recommendations.csv` in the folder of the run.

# %%
path = Path(workdir) / "recommendations.csv"
with open(path, "w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(["user_id", "place", "illust_id", "probability", *job.task.modality_names])
    for user in people.eligible(job.data)[: 5 if SMALL else None]:
        person = people.recommend(
            dataset, job.data, job.features, int(user), run.predict, job.eval.batch_size, predicted
        )
        for place, pick in enumerate(person.recommended, 1):
            table.writerow([
                dataset.users.user_id[user], place, dataset.items.illust_id[pick.item],
                f"{pick.probability:.4f}", *(f"{weight:.3f}" for weight in pick.weights),
            ])  # fmt: skip
print(*path.read_text("utf-8").splitlines()[:6], sep="\n")
