# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: recommending drawings, and saying why
# From 2,743 drawings and simulated bookmarks to a trained ranker, its recommendations and the
# reasons for them, in a few minutes on a CPU. No account, and no download of weights or data.
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
# Three epochs are enough to see how it works; ten are what the README's table has.

# %%
EPOCHS = 3
PERSON = 0  # which of ten people is shown below, 0 to 9
QUERIES = 6  # drawings whose neighbours are shown

# The tests run this notebook at a toy size, where its pictures mean nothing.
SMALL = os.environ.get("UMAIR_NOTEBOOK_SMALL") == "1"

# %% [markdown]
# ## Devices
# Nothing has to be set: a batch, and the rows of all tables, spread over whatever JAX finds.

# %%
import jax

devices = jax.devices()
kind = {"cpu": "CPU", "gpu": "GPU", "tpu": "TPU"}.get(jax.default_backend(), "accelerator")
print(f"JAX {jax.__version__} found {len(devices)} x {kind} ({devices[0].device_kind}).")
if kind == "CPU":
    print("That is enough here. On Colab, Runtime > Change runtime type offers others.")

# %% [markdown]
# ## Data and vectors
# 2,743 drawings in the public domain come with the package. Their bookmarks are **simulated**:
# there are no public logs for drawings. Each of 1,500 made-up people likes some subjects, some
# looks, some artists and whatever is popular, in a mixture of their own.
#
# Every drawing goes once through an image encoder, which gives two vectors: *content* (what is
# shown) and *style* (how it is painted: Gram matrices of the first maps of a ResNet). Tags and
# title go through a text encoder. Both encoders come trained with the package.

# %%
from absl import logging
from rich.console import Console

from configs import base, smoke
from umair_jax.jobs import bookmarks

logging.set_verbosity(logging.ERROR)  # libraries report every file that they touch

config = smoke.get_config() if SMALL else base.get_config()
if not SMALL:
    config.train.epochs = float(EPOCHS)
config.log.sharding_table = False  # train_on_tpu shows it

console = Console(force_jupyter=False, force_terminal=False, color_system=None, width=100)
loaded = bookmarks.load(config, console)
job = bookmarks.assemble(config, console, loaded)
dataset, bank = job.dataset, job.bank()
print(
    f"{len(dataset.items):,} drawings, {len(dataset.users):,} people, "
    f"{len(dataset.interactions):,} times that one saw another; "
    f"bookmarks {'simulated' if dataset.simulated else 'real'}"
)
print(
    f"vectors: content {bank.content.shape[1]}, style {bank.style.shape[1]}, "
    f"text {bank.text.shape[1]} numbers a drawing"
)

# %% [markdown]
# ## Style neighbours and content neighbours
# Left the drawing, in the middle the five nearest by style, on the right the five nearest by
# content. Content should find the same thing drawn otherwise, style other things drawn the same
# way.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib_inline.backend_inline import set_matplotlib_formats

from umair_jax.data.images import BadImage, load_square
from umair_jax.reporting import similar

# Small enough to be kept in the notebook.
set_matplotlib_formats("jpg", pil_kwargs={"quality": 88})


def picture(row, size=112):
    """A drawing on white; grey where there is none."""
    try:
        return load_square(dataset.image_bytes(row), size)
    except BadImage:
        return np.full((size, size, 3), 225, np.uint8)


def name_of(row, width=20):
    """Its title, cut to a width."""
    return textwrap.shorten(dataset.items.title[row] or "untitled", width, placeholder="…")


def show(axes, row, below="", colour="0.75"):
    """A drawing in axes of its own, with a line of text below it."""
    axes.imshow(picture(row))
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(below, fontsize=8, labelpad=3)
    for side in axes.spines.values():
        side.set(color=colour, linewidth=0.8 if colour == "0.75" else 2.5)


found = similar.neighbours(bank, queries=QUERIES, k=5, seed=1)
widths = [1, 0.25, *[1] * 5, 0.25, *[1] * 5]
figure, grid = plt.subplots(
    len(found), len(widths), figsize=(12.6, 1.25 * len(found) + 0.3), squeeze=False,
    gridspec_kw={"width_ratios": widths, "wspace": 0.06, "hspace": 0.28},
)  # fmt: skip
for axes in grid.flat:
    axes.set_axis_off()
for line, query in zip(grid, found, strict=True):
    for axes, row in zip(
        [line[0], *line[2:7], *line[8:13]],
        [query.item, *query.nearest["style"], *query.nearest["content"]],
        strict=True,
    ):
        axes.set_axis_on()
        show(axes, row)
    line[0].set_xlabel(name_of(query.item), fontsize=8)
for column, text in ((0, "drawing"), (4, "nearest by style"), (10, "nearest by content")):
    grid[0, column].set_title(text, fontsize=11)
plt.show()

# %% [markdown]
# ## Training
# The ranker, UMAIR-FPS: given a person and a drawing, how probable is a bookmark? Call this cell
# again and whatever is done is kept: an interrupted run goes on from its last checkpoint.

# %%
import functools

from umair_jax.train import train

assemble = functools.partial(bookmarks.assemble, loaded=loaded)
workdir = "runs/quickstart_small" if SMALL else f"runs/quickstart_{EPOCHS}_epochs"
summary = train(config, workdir, console=console, assemble=assemble)

# %% [markdown]
# ## How good is it?
# Test examples are the last tenth of the log; most of their drawings have hardly been seen in
# training. Since bookmarks are simulated, the true probability of each is known: the *oracle* knows
# it, and no model can be better on average. *Popularity* knows only how often a drawing was seen
# and bookmarked before.

# %%
from configs import baselines

config = baselines.get_config("popularity,on=smoke" if SMALL else "popularity")
if not SMALL:
    config.train.epochs = float(EPOCHS)
config.log.sharding_table = config.log.progress = False
quiet = Console(quiet=True)
popularity = train(config, f"{workdir}_popularity", console=quiet)

print(f"{'test, simulated bookmarks':28}{'AUC':>8}{'log loss':>12}")
for name, values in (
    ("UMAIR-FPS", summary["test"]),
    ("popularity (baseline)", popularity["test"]),
    ("one probability for all", summary["constant"]),
    ("oracle (ceiling)", summary["oracle"]),
):
    print(f"{name:28}{values['auc']:8.4f}{values['log_loss']:12.4f}")
print(
    f"\nOf the way from one probability for all to the oracle, UMAIR-FPS goes "
    f"{summary['share_of_oracle']['auc']:.0%} in AUC."
)

# %% [markdown]
# ## Five recommendations for a person
# At the moment of the person's first test example: what they had bookmarked, and the five most
# probable of all drawings that were out by then. The bars are the modality weights of UMCM, which
# say how much each kind of knowledge counts for this person and this drawing: *content* and *style*
# come from the picture, *text* from tags and title, *meta* is ids, artist, tags and counts.

# %%
from umair_jax import load_run
from umair_jax.reporting import people

COLOURS = {"meta": "#bd6497", "content": "#0072b2", "style": "#dd8500", "text": "#009e73"}

run = load_run.load(workdir, "best", quiet)
test = run.job.evaluators()["test"].source
predicted = run.predict(test)
chosen = people.choose(job.data, 10)
person = people.recommend(
    dataset, job.data, job.features, int(chosen[PERSON % len(chosen)]), run.predict,
    job.eval.batch_size, predicted,
)  # fmt: skip

names = job.task.modality_names
best = person.recommended[:5]
figure, grid = plt.subplots(
    3, 5, figsize=(10.5, 6.2), squeeze=False,
    gridspec_kw={"height_ratios": [1, 1, 0.42], "wspace": 0.16, "hspace": 0.3},
)  # fmt: skip
for axes in grid.flat:
    axes.set_axis_off()
for axes, row in zip(grid[0], person.recent, strict=False):
    axes.set_axis_on()
    show(axes, row, name_of(row))
for axes, bars, pick in zip(grid[1], grid[2], best, strict=False):
    axes.set_axis_on()
    said = "" if pick.outcome == people.UNSEEN else f", {pick.outcome}"
    frame = {"bookmarked": "#3a9a5b", "passed": "#c43c3c"}.get(pick.outcome, "0.75")
    show(axes, pick.item, f"{name_of(pick.item)}\n{pick.probability:.2f}{said}", frame)
    bars.set_axis_on()
    bars.barh(names, pick.weights, color=[COLOURS[name] for name in names])
    bars.set(xlim=(0, 1), xticks=[])
    bars.invert_yaxis()
    bars.tick_params(length=0, labelsize=8, labelleft=bars is grid[2, 0])
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    for place, weight in enumerate(pick.weights):
        bars.text(weight + 0.03, place, f"{weight:.2f}", va="center", fontsize=8)
grid[0, 0].set_title("Bookmarked before, newest first", loc="left", fontsize=11)
grid[1, 0].set_title("Recommended, with its probability; weights below", loc="left", fontsize=11)
plt.show()

print(
    f"{dataset.users.user_id[person.user]}: {person.before} bookmarks before, "
    f"{person.candidates:,} drawings ranked."
)
if person.true_mixture:
    parts = zip(("content", "style", "artist", "popularity"), person.true_mixture, strict=True)
    told = ", ".join(f"{part} {share:.0%}" for part, share in parts)
    print(f"True taste of this simulated person, which the model never sees: {told}.")

# %% [markdown]
# A green frame: the test part says that this person bookmarked it; red: saw it and passed on. Most
# have neither, since a person is shown a few drawings of all.
#
# **Next:** `style_and_weights` looks closer at both; `your_drawings` does this with your own folder
# and writes all of it as one page; `train_on_tpu` spreads the training over devices.
