"""A run as a folder: programs equal the ranker, the documented lines need nothing else."""

import functools
import io
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
import small_world
from jax import export as jax_export
from ml_collections import ConfigDict
from pyarrow import parquet
from rich.console import Console
from safetensors.numpy import load_file

from umair_jax import export, load_run, settings
from umair_jax.data import feature_bank, snapshot
from umair_jax.data.batches import BatchSource
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.jobs.bookmarks import BookmarksJob, EvalConfig
from umair_jax.models.rankers import RANKERS
from umair_jax.serving import folder, programs
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import record, sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import make_optimiser
from umair_jax.training.settings import FitConfig, TrainConfig

ROOT = Path(__file__).parents[1]
TINY = {
    "tower_widths": (8, 6),
    "modality_width": 6,
    "head_widths": (5,),
    "cross_layers": 1,
    "cross_rank": 2,
    "cross_experts": 2,
    "fm": "vectors",
}
FEATURES = {"fractions": small_world.FRACTIONS, "history": 3}
STEP = 30


def quiet():
    return Console(file=io.StringIO(), width=200)


@functools.cache
def world():
    return small_world.dataset(rows=256, seconds=150)


@functools.cache
def data():
    return small_world.build(world(), **FEATURES)


def task_of(name="umair_fps", options=None):
    shape = bookmarks.shape_of(data().schema)
    return BookmarksTask(data(), settings.build(RANKERS[name], {**(options or {}), **shape}))


def shaken(tree, seed=0):
    """Every leaf with values of its own, so that no part of the ranker is idle."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.asarray(x + rng.uniform(0.01, 0.2, x.shape), x.dtype), tree)


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    """A run of the made-up site: its folder, and what is loaded from it."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    task = task_of(options=TINY)
    fit = FitConfig(TrainConfig(batch_size=64, steps=STEP))
    config = ConfigDict({"task": "bookmarks", "features": FEATURES})
    job = BookmarksJob(config, world(), data(), task, fit, EvalConfig(64, 0))
    mesh = sharding.make_mesh(fit.mesh)
    init = states.initialiser(task, make_optimiser(fit.optim, STEP), fit.tables, 0)
    abstract = states.abstract_state(init, mesh, fit.mesh.rules)
    state = states.create(init, abstract)
    state = jax.device_put(shaken(state), states.shardings_of(abstract))
    context = sharding.place_context(task.context(), mesh)
    workdir = tmp_path_factory.mktemp("run")
    record.write_config(workdir, settings.as_json(config))
    yield workdir, load_run.LoadedRun(job, STEP, state, context, Predictor(task, mesh))
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of the run, below runs/base as in the documentation."""
    place = tmp_path_factory.mktemp("site") / "runs" / "base" / "serving"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_run, "load", lambda *_: run[1])
        patch.setattr(feature_bank, "load", lambda _: small_world.bank())
        assert export.export(run[0], out=place, console=quiet()) == place
    return place


def call(place, name, *inputs):
    signature = json.loads((place / folder.SIGNATURE).read_text("utf-8"))
    weights = load_file(place / folder.WEIGHTS)
    own = {key: weights[key] for key in signature["programs"][name]["weights"]}
    program = jax_export.deserialize(bytearray((place / f"{name}.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    return jax.device_get(program.call(own, *inputs))


def on_device(arrays):
    return {name: jax.numpy.asarray(array) for name, array in arrays.items()}


def read(task, columns):
    """What the programs take of these interactions, as NumPy arrays."""
    found = jax.jit(functools.partial(programs.read, task))(task.context(), columns)
    return jax.device_get(found)


def now():
    config = RankingConfig(**FEATURES)
    return snapshot.latest(world(), small_world.bank(), data(), config)


# Programs ----------------------------------------------------------------------------------------


def test_the_scorer_gives_the_predictions_of_the_run(run, exported):
    _, loaded = run
    source = bookmarks.batch_source(data(), "test", 64)
    want = loaded.predict(source)
    user, item = read(loaded.job.task, {k: source.column(k) for k in data().columns})
    for rows in (slice(0, 5), slice(None)):  # any size of batch
        sides = [{k: x[rows] for k, x in side.items()} for side in (user, item)]
        got = call(exported, "scorer", *sides)
        for name in want:
            np.testing.assert_allclose(got[name], want[name][rows], rtol=0, atol=1e-6)
    assert np.ptp(want["probability"]) > 1e-3


def test_towers_compose_to_the_scorer(run, exported):
    source = bookmarks.batch_source(data(), "test", 64)
    user, item = read(run[1].job.task, {k: source.column(k) for k in data().columns})
    # What is missing counts for nothing, whatever stands in its place.
    holes = ~np.asarray(item["present"])[:, 1]
    assert holes.any()
    item["content"] = np.where(holes[:, None], np.nan, item["content"])
    halves = call(exported, "user_tower", user), call(exported, "item_tower", item)
    got, want = call(exported, "match", *halves), call(exported, "scorer", user, item)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-6)


def test_each_piece_takes_its_own_weights_only(exported):
    signature = json.loads((exported / folder.SIGNATURE).read_text("utf-8"))
    taken = {name: set(p["weights"]) for name, p in signature["programs"].items()}
    assert taken["scorer"] == set(signature["weights"]) == set(load_file(exported / folder.WEIGHTS))
    assert not any(name.startswith("tables/") for name in taken["match"])
    assert not any("user_tower" in name for name in taken["item_tower"] | taken["match"])
    assert not any("meta_tower" in name for name in taken["user_tower"] | taken["match"])
    assert taken["user_tower"] | taken["item_tower"] | taken["match"] == taken["scorer"]
    # Nothing is baked in, neither tables nor where the programs were made.
    for path in exported.glob("*.stablehlo"):
        assert path.stat().st_size < 100_000
        assert b".py" not in path.read_bytes()


def test_the_signature_tells_the_row_of_every_value(exported):
    signature = json.loads((exported / folder.SIGNATURE).read_text("utf-8"))
    schema, columns = data().schema, now().columns
    seen = 0
    for field in signature["fields"]:
        if field["name"] not in columns:
            continue
        local = columns[field["name"]][: len(world().items) + 1].astype(np.int64)
        for table in ("embedding", "wide"):
            rows = np.load(exported / "items" / f"{table}_rows.npy")[:, field["place"]]
            np.testing.assert_array_equal(
                rows, np.where(local < 0, 0, field[f"first_{table}_row"] + local)
            )
        seen += 1
    assert seen == 3
    artist = next(f for f in signature["fields"] if f["name"] == "artist_id")
    local = schema.encode("artist_id", world().items.artist)
    rows = np.load(exported / "items" / "embedding_rows.npy")[:, artist["place"]]
    np.testing.assert_array_equal(
        rows, np.where(local < 0, 0, artist["first_embedding_row"] + local)
    )


# The folder --------------------------------------------------------------------------------------


def test_the_signature_describes_what_is_there(exported):
    signature = json.loads((exported / folder.SIGNATURE).read_text("utf-8"))
    assert signature["checkpoint"] == STEP
    assert signature["present"] == ["meta", "content", "style", "text"]
    for side in ("users", "items"):
        ids = np.load(exported / side / "id.npy")
        assert len(ids) == signature[side]["count"] + 1
        inputs = signature["programs"]["scorer"]["inputs"][side[:-1]]
        assert list(inputs) == list(signature[side]["arrays"])
        for name, said in signature[side]["arrays"].items():
            array = np.load(exported / side / f"{name}.npy")
            assert said == {"shape": list(array.shape), "dtype": str(array.dtype)}
            assert inputs[name]["shape"] == ["B", *array.shape[1:]]
            assert len(array) == len(ids)
    for name, array in load_file(exported / folder.WEIGHTS).items():
        assert signature["weights"][name] == {"shape": list(array.shape), "dtype": "float32"}
    table, bank = parquet.read_table(exported / folder.CATALOGUE), small_world.bank()
    assert tuple(table["illust_id"].to_pylist()) == world().items.illust_id[1:]
    for name, width in small_world.WIDTHS.items():
        assert str(table.schema.field(name).type) == f"fixed_size_list<element: float>[{width}]"
        np.testing.assert_array_equal(table[name].to_pylist(), getattr(bank, name)[1:])
    np.testing.assert_array_equal(table["has_image"].to_numpy(), bank.has_image[1:])


BLOCKED = """
import sys
for name in ("umair_jax", "flax", "optax", "orbax", "safetensors", "pyarrow", "torch"):
    sys.modules[name] = None
"""
KEPT = """
pairs = [(u, i) for u in list(user_row)[1:] for i in drawings]
every = score(*zip(*pairs))
np.savez("found.npz", composed=composed["probability"], found=found["probability"], **every)
before = int(items["embedding_rows"][rows[0], 7])
"""


def blocks(title):
    """The indented lines of a section of docs/serving.md."""
    text = (ROOT / "docs" / "serving.md").read_text("utf-8")
    text = re.split(r"^##+ ", text.partition(f"### {title}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in text.splitlines() if line.startswith("    ") or not line]
    return textwrap.dedent("\n".join(lines))


def test_the_documented_lines_score_with_jax_and_numpy_alone(run, exported):
    """A fresh process, and no package but these two; the same numbers."""
    code = BLOCKED + blocks("Scoring") + blocks("Towers") + KEPT + blocks("What the arrays know")
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=exported.parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.startswith("['meta', 'content', 'style', 'text']\n")
    with np.load(exported.parents[2] / "found.npz", allow_pickle=False) as file:
        got = dict(file)
    np.testing.assert_allclose(got.pop("composed"), got.pop("found"), rtol=0, atol=1e-6)
    # As the run itself predicts for everybody and everything at that moment.
    latest, loaded = now(), run[1]
    users, items = len(world().users), len(world().items)
    user = np.repeat(np.arange(1, users + 1, dtype=np.int32), items)
    item = np.tile(np.arange(1, items + 1, dtype=np.int32), users)
    columns = {name: column[item] for name, column in latest.columns.items()}
    columns |= {"user": user, "state": user, "item": item}
    task = BookmarksTask(latest, loaded.job.task.config)
    mesh = sharding.make_mesh(loaded.job.fit.mesh)
    predictor = Predictor(task, mesh)
    context = sharding.place_context(task.context(), mesh)
    want = predictor(loaded.state, context, BatchSource(columns, 64, shuffle=False))
    assert set(got) == set(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-6)


def test_a_folder_with_something_else_is_left_alone(run, exported, tmp_path):
    mine = record.digest(load_run.recorded(run[0])["config"])
    folder.check(tmp_path / "new", mine)
    folder.check(tmp_path, mine)
    folder.check(exported, mine)
    with pytest.raises(ValueError, match=r"got the export of a run with another config; .* --out"):
        folder.check(exported, "another")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"got thesis\.tex; expected a new or empty folder"):
        export.export(run[0], out=tmp_path, console=quiet())
    with pytest.raises(ValueError, match="got a file; expected a folder"):
        folder.check(tmp_path / "thesis.tex", mine)
    note = exported / "users" / "note.txt"
    note.write_text("")
    with pytest.raises(ValueError, match=r"got users/note\.txt; expected"):
        folder.check(exported, mine)
    note.unlink()


def test_an_earlier_export_is_replaced_as_a_whole(run, exported, monkeypatch):
    before = {p: p.read_bytes() for p in exported.rglob("*") if p.is_file()}
    (exported / "match.stablehlo").write_bytes(b"old")
    monkeypatch.setattr(load_run, "load", lambda *_: run[1])
    monkeypatch.setattr(feature_bank, "load", lambda _: small_world.bank())
    monkeypatch.setattr(export, "exported", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.export(run[0], out=exported, console=quiet())
    assert (exported / "match.stablehlo").read_bytes() == b"old"  # a failure changes nothing
    monkeypatch.undo()
    monkeypatch.setattr(load_run, "load", lambda *_: run[1])
    monkeypatch.setattr(feature_bank, "load", lambda _: small_world.bank())
    export.export(run[0], out=exported, console=quiet())
    assert {p: p.read_bytes() for p in exported.rglob("*") if p.is_file()} == before
    assert [p.name for p in exported.parent.iterdir()] == ["serving"]


def test_only_runs_of_the_ranker(run, tmp_path):
    with pytest.raises(ValueError, match=r"got no config\.json; expected the folder of a run"):
        export.export(tmp_path, console=quiet())
    config = {"config": {"task": "image_tags"}}
    (tmp_path / record.CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"got a run of the task 'image_tags'; expected 'bookm"):
        export.export(tmp_path, console=quiet())
    with pytest.raises(ValueError, match=r"arguments: got \['runs/base'\]"):
        export.main(["export", "runs/base"])
