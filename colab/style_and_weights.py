# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Style vectors and modality weights
# What the image encoder calls style, beside what it calls content; and what the ranker's weights of
# these modalities say about people.
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
QUERY = "camel head"  # the first drawing with this in its title is looked at closely
SEED = 0  # of what is drawn at random

# The tests run this notebook at a toy size, where its pictures mean nothing.
SMALL = os.environ.get("UMAIR_NOTEBOOK_SMALL") == "1"

# %% [markdown]
# ## The run
# The main job as `make train` runs it: where that has been done, it is only evaluated again.
# Otherwise it takes some minutes on a CPU. The drawings are real; their bookmarks are
# **simulated**.

# %%
import functools

import jax
from absl import logging
from rich.console import Console

from configs import base, smoke
from umair_jax import load_run
from umair_jax.jobs import bookmarks
from umair_jax.train import train

logging.set_verbosity(logging.ERROR)  # libraries report every file that they touch
config = smoke.get_config() if SMALL else base.get_config()
config.log.sharding_table = False
workdir = "runs/smoke" if SMALL else "runs/base"

quiet = Console(quiet=True)
console = Console(force_jupyter=False, force_terminal=False, color_system=None, width=100)
print(f"{jax.device_count()} x {jax.devices()[0].device_kind}; data and vectors come first ...")
loaded = bookmarks.load(config, quiet)
assemble = functools.partial(bookmarks.assemble, loaded=loaded)
summary = train(config, workdir, console=console, assemble=assemble)
run = load_run.load(workdir, "best", quiet)
job, dataset, bank = run.job, run.job.dataset, run.job.bank()

# %% [markdown]
# ## What a style vector is
# The first stage of a ResNet answers at every place of a picture with some numbers, its *channels*:
# this edge, that colour, such a texture. Their Gram matrix, *G = FᵀF / (places)*, says which
# channels answer together, and forgets where. It is read off every block of the stage, and the
# largest of each entry is kept. Half of the symmetric matrix, standardised and whitened, is the
# style vector. The mean over the places of the last stage, whitened, is the content vector.
#
# Below: a drawing, its nearest two by style and its nearest two by content, and their Gram
# matrices, as logarithms less the mean of many drawings: red where two channels answer together
# more than usual. Drawings that are near by style have alike patterns.

# %%
import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib_inline.backend_inline import set_matplotlib_formats

from umair_jax.data.images import BadImage, load_square
from umair_jax.encoding import pair
from umair_jax.models.style import gram_style
from umair_jax.probes.neighbours import nearest, unit

# Small enough to be kept in the notebook.
set_matplotlib_formats("jpg", pil_kwargs={"quality": 62})
VECTORS = {
    "style": bank.style,
    "content": bank.content,
    # Cosines of two such are the mean of both.
    "both": np.concatenate([unit(bank.style), unit(bank.content)], axis=1),
}
pictured = np.flatnonzero(bank.has_image)


def picture(row, size=112):
    """A drawing on white; grey where there is none."""
    try:
        return load_square(dataset.image_bytes(row), size)
    except BadImage:
        return np.full((size, size, 3), 225, np.uint8)


def name_of(row, width=18):
    """Its title, cut to a width."""
    return textwrap.shorten(dataset.items.title[row] or "untitled", width, placeholder="…")


def show(axes, row, below=""):
    """A drawing in axes of its own, with a line of text below it."""
    axes.imshow(picture(row))
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(below, fontsize=8, labelpad=3)
    for side in axes.spines.values():
        side.set(color="0.75", linewidth=0.8)


def neighbours(row, by, k):
    """The k drawings nearest to one by "style", "content" or "both", without itself."""
    vectors, group = VECTORS[by][pictured], np.arange(len(pictured))
    (place,) = np.flatnonzero(pictured == row)
    return pictured[nearest(vectors[[place]], vectors, group[[place]], group, k)[0]]


def find(words):
    """Rows of the drawings with these words in their titles."""
    titles = dataset.items.title
    return [row for row in pictured.tolist() if words.lower() in titles[row].lower()]


row = (find(QUERY) or pictured.tolist())[0]
encoder = pair.load(job.bank_folder, job.extract).image
settings = encoder.cfg


@jax.jit
def triangles(images):
    """One half of each picture's Gram matrix, over the blocks of the style head's stage."""
    maps = encoder.maps(images)[settings.style.stages[0]]
    return gram_style(maps, "triangle", settings.style.combine)


def grams(rows):
    """Logarithms of whole Gram matrices [N, C, C]."""
    pixels = np.stack([picture(row, settings.image_size) for row in rows])
    half = np.asarray(triangles(pixels.astype(np.float32) / 255))
    channels = int((2 * half.shape[1]) ** 0.5)
    whole = np.zeros((len(rows), channels, channels), np.float32)
    upper = np.triu_indices(channels)
    whole[:, *upper] = whole[:, upper[1], upper[0]] = np.log(np.abs(half) + 1e-3)
    return whole


shown = [row, *neighbours(row, "style", 2), *neighbours(row, "content", 2)]
sample = np.random.default_rng(SEED).choice(pictured, 16 if SMALL else 256, replace=False)
usual = np.mean(
    [matrix for part in np.split(sample, len(sample) // 16) for matrix in grams(part)], 0
)
matrices = grams([*shown, *sample[:11]])[: len(shown)] - usual

heads = ("drawing", "1st by style", "2nd by style", "1st by content", "2nd by content")
figure, grid = plt.subplots(2, 5, figsize=(8.4, 3.7), gridspec_kw={"hspace": 0.16, "wspace": 0.1})
for above, below, item, matrix, head in zip(*grid, shown, matrices, heads, strict=True):
    show(above, item, name_of(item))
    above.set_title(head, fontsize=10)
    below.imshow(matrix, cmap="RdBu_r", vmin=-3, vmax=3)
    below.set(xticks=[], yticks=[])
grid[1, 0].set_ylabel(f"{matrices.shape[1]} x {matrices.shape[1]} channels", fontsize=9)
plt.show()

# %% [markdown]
# ## Neighbours of any drawing
# `find("words")` gives rows of drawings by their titles; `neighbours(row, "style", 8)` those near
# one.

# %%
K = 8
figure, grid = plt.subplots(
    3, K + 1, figsize=(11.5, 4.5), gridspec_kw={"wspace": 0.08, "hspace": 0.3}
)
for line, by in zip(grid, VECTORS, strict=True):
    show(line[0], row, name_of(row))
    line[0].set_ylabel(by, fontsize=11)
    for axes, item in zip(line[1:], neighbours(row, by, K), strict=True):
        show(axes, item, name_of(item, 14))
grid[0, 0].set_title("drawing", fontsize=10)
grid[0, 1].set_title("nearest ...", fontsize=10, loc="left")
plt.show()

# %% [markdown]
# ## A map of the catalogue
# The two directions along which the vectors of all drawings differ most (principal components),
# once of style and once of content. Places are ranks, so that drawings spread evenly; of each cell
# the drawing nearest to its middle is shown.

# %%
COLUMNS, ROWS, TILE = (6, 5, 40) if SMALL else (15, 13, 40)


def principal(vectors, count=2):
    """Coordinates along the first principal components, and their share of the variance."""
    centred = unit(vectors) - unit(vectors).mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :count] * size[:count], (size**2)[:count].sum() / (size**2).sum()


def catalogue_map(places):
    """One picture: a grid of drawings, each where it belongs."""
    ranks = places.argsort(axis=0).argsort(axis=0) / len(places)
    page = np.full((ROWS * TILE, COLUMNS * TILE, 3), 255, np.uint8)
    for y in range(ROWS):
        for x in range(COLUMNS):
            middle = ((x + 0.5) / COLUMNS, (y + 0.5) / ROWS)
            inside = (np.abs(ranks - middle) <= (0.5 / COLUMNS, 0.5 / ROWS)).all(axis=1)
            if inside.any():
                away = np.where(inside, np.square(ranks - middle).sum(axis=1), np.inf)
                tile = picture(int(pictured[away.argmin()]), TILE - 4)
                top, left = y * TILE + 2, x * TILE + 2
                page[top : top + TILE - 4, left : left + TILE - 4] = tile
    return page


figure, grid = plt.subplots(1, 2, figsize=(11.6, 5.4), gridspec_kw={"wspace": 0.04})
for axes, by in zip(grid, ("style", "content"), strict=True):
    places, share = principal(VECTORS[by][pictured])
    axes.imshow(catalogue_map(places))
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"{by}: two components, {share:.0%} of the variance", fontsize=11)
plt.show()

# %% [markdown]
# ## Modality weights
# UMCM gives each modality a weight for each person and drawing; they add up to one. *content* and
# *style* come from the picture, *text* from tags and title, *meta* is ids, artist, tags and counts.
# Left: how the mean weights of single people are spread, each over all that the person was shown.
# Right: the mean weights by how many bookmarks the person had made before.

# %%
from umair_jax.data.batches import BatchSource

COLOURS = {"meta": "#bd6497", "content": "#0072b2", "style": "#dd8500", "text": "#009e73"}
names = job.task.modality_names
log = dataset.interactions
weights = run.predict(BatchSource(job.data.columns, job.eval.batch_size, shuffle=False))["weights"]

people = np.unique(log.user)
means = np.stack([weights[log.user == user].mean(axis=0) for user in people])

# The log is in order of time; within a person, the bookmarks of earlier lines.
order = np.argsort(log.user, kind="stable")
running = np.cumsum(log.label[order]) - log.label[order]
first = np.searchsorted(log.user[order], log.user[order])
before = np.empty(len(log), np.int64)
before[order] = running - running[first]

edges = (0, 1, 5, 10, 20, 40)
labels = ("none", "1-4", "5-9", "10-19", "20-39", "40 +")
bins = np.digitize(before, edges[1:])
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), gridspec_kw={"wspace": 0.22})
parts = left.violinplot(list(means.T), showmeans=True, showextrema=False, widths=0.8)
for body, name in zip(parts["bodies"], names, strict=True):
    body.set(facecolor=COLOURS[name], alpha=0.7)
parts["cmeans"].set(color="0.2")
left.set_xticks(range(1, len(names) + 1), names)
left.set(title=f"Mean weights of {len(people):,} people", ylabel="weight")
there = [k for k in range(len(edges)) if (bins == k).any()]
for place, name in enumerate(names):
    line = [weights[bins == k, place].mean() for k in there]
    right.plot(range(len(there)), line, "o-", color=COLOURS[name], label=name)
right.set_xticks(range(len(there)), [labels[k] for k in there])
right.set(title="Mean weight by activity", xlabel="bookmarks before")
right.legend(frameon=False, fontsize=9, ncols=2)
for axes in (left, right):
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## Do the weights follow what people like?
# Each simulated person is a mixture of four tastes, which the model never sees. Against it the mean
# weight of the modalities that can tell: a taste for subjects shows in tags, so *content* and
# *text* together; artists and popularity reach the model as *meta* alone. One point a person; in
# the title Spearman's rank correlation.

# %%
from umair_jax.probes.contributions import TASTES, rank_correlations

mixture = dataset.users.true_mixture
found = rank_correlations(weights, names, log.user, mixture)
figure, grid = plt.subplots(1, len(TASTES), figsize=(9.4, 3.1), gridspec_kw={"wspace": 0.42})
for axes, (taste, (parts, modalities)) in zip(grid, TASTES.items(), strict=True):
    mine = means[:, [names.index(name) for name in modalities]].sum(axis=1)
    axes.plot(mixture[people][:, parts].sum(axis=1), mine, ".", markersize=2.5,
              color=COLOURS[modalities[0]], alpha=0.6)  # fmt: skip
    axes.set_title(f"{taste}: {found[taste]:.2f}", fontsize=11)
    axes.set(xlabel="true share of the taste", ylabel="weight of " + " + ".join(modalities))
    axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## The deletion test
# If weights say what a prediction rests on, then it should lose more without the modality that it
# weighed most than without the one that it weighed least. The test examples again, each with one
# modality masked; an AUC of 0.5 is chance. `umair_jax.evaluate --task=weights` asks the same.

# %%
from umair_jax.evaluate_weights import evaluate_weights

deletion = evaluate_weights(workdir, console=quiet)["deletion"]
cases = {"nothing": "auc", "the largest weight": "auc_without_largest",
         "the smallest weight": "auc_without_smallest"}  # fmt: skip
cases |= {name: f"auc_without_{name}" for name in names}
values = [deletion[key] for key in cases.values()]
figure, axes = plt.subplots(figsize=(7.5, 3.2))
axes.barh(list(cases), values, color=["0.35", "0.6", "0.6", *(COLOURS[name] for name in names)])
axes.invert_yaxis()
axes.set(xlim=(min(0.5, *values), max(values) + 0.03), xlabel="test AUC, simulated bookmarks")
axes.set_title("Without ...", fontsize=11, loc="left")
axes.spines[["top", "right"]].set_visible(False)
for place, value in enumerate(values):
    axes.text(value + 0.003, place, f"{value:.3f}", va="center", fontsize=9)
plt.show()
low, high = (deletion[f"largest_hurts_more_auc_{end}"] for end in ("low", "high"))
print(
    f"The largest is missed more than the smallest by {deletion['largest_hurts_more_auc']:.3f} AUC "
    f"({low:.3f} to {high:.3f}, 95 % interval over people)."
)
