"""The two towers from a config to vectors that others can search."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import small_world
from rich.console import Console
from test_train import TINY

from configs import retrieval
from umair_jax import load_run
from umair_jax.data import ranking
from umair_jax.data.batches import BatchSource
from umair_jax.data.catalogue_questions import catalogue_at
from umair_jax.data.fold_in import FoldIn
from umair_jax.data.snapshot import moment_after
from umair_jax.evaluate_run import evaluate
from umair_jax.interop import vector_index
from umair_jax.jobs import bookmarks
from umair_jax.jobs.retrieval import BASELINES
from umair_jax.recommending import person
from umair_jax.recommending.filters import Filters, Rules
from umair_jax.recommending.retriever import TowerRetriever
from umair_jax.tasks.retrieval import ITEM, USER
from umair_jax.train import train

ITEMS = 30
CHANGES = {
    **{k: v for k, v in TINY.items() if not k.startswith(("model.", "extract."))},
    "model.tower_widths": (8,),
    "model.modality_width": 4,
    "model.width": 4,
    "train.batch_size": 32,
    "train.steps": 12,
    "train.epochs": 0.0,
    "train.eval_every_steps": 6,
    "eval.batch_size": 64,
    "features.fractions": (0.6, 0.2, 0.2),
}


@pytest.fixture(scope="module", autouse=True)
def compile_fast(compiled_once):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def config_of(root, **changes):
    config = retrieval.get_config()
    config.update_from_flattened_dict(CHANGES | {"data.root": str(root)} | changes)
    return config


def joined(made, console, blank=None):
    """A made-up site in place of prepared and encoded data."""
    dataset = small_world.dataset(rows=400, users=9, items=ITEMS, seconds=300)
    bank = small_world.bank(items=ITEMS)
    data = ranking.build(dataset, bank, made["schema"].schema(), made["features"])
    return bookmarks.Loaded(dataset, data, Path())


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("retrieval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bookmarks, "joined", joined)
        yield trained(folder)


def trained(folder):
    out = io.StringIO()
    summary = train(
        config_of(folder / "data"), folder / "run", console=Console(file=out, width=100)
    )
    return folder, summary, out.getvalue()


def test_metrics_stand_beside_those_of_baselines(run):
    _, summary, printed = run
    names = {"recall_at_10", "recall_at_100", "mrr"}
    for part in ("validation", "test"):
        for values in (summary[part], *(summary[name][part] for name in BASELINES)):
            shown = {name for name in values if not name.endswith(("_low", "_high"))}
            assert names <= shown <= {*names, "cold_recall_at_100"}
            assert 0 < values["mrr_low"] <= values["mrr"] <= values["mrr_high"] <= 1
            # Every item of so small a catalogue is among the best hundred.
            assert values["recall_at_100"] == 1
        assert summary["bookmarks"][part] > 0
    assert summary["catalogue"] == ITEMS
    tags = small_world.dataset(rows=400, users=9, items=ITEMS, seconds=300).items.tags
    distinct = len({tag for each in tags for tag in each})
    assert summary["hash_tables"]["item_tag"]["distinct"] == distinct > 0
    assert "hash tables" in printed.lower()
    assert "last 7 days" in printed
    assert f"{summary['test']['mrr']:.4f}" in printed


def test_a_run_is_measured_again_from_its_folder(run):
    folder, summary, _ = run
    again = evaluate(folder / "run", console=Console(quiet=True))
    for part in ("validation", "test"):
        for name, value in summary[part].items():
            assert again[part][name] == pytest.approx(value, abs=1e-9), name
    assert {name: again[name] for name in BASELINES} == {name: summary[name] for name in BASELINES}


def test_the_vectors_are_those_of_the_catalogue_at_the_end_of_the_log(run):
    folder, summary, _ = run
    vectors = np.load(folder / "run" / "item_vectors.npy", allow_pickle=False)
    ids = json.loads((folder / "run" / "item_ids.json").read_text("utf-8"))
    loaded = load_run.load(folder / "run", "best", Console(quiet=True))
    assert ids == list(loaded.job.dataset.items.illust_id)
    assert vectors.shape == (ITEMS + 1, summary["vector_width"])
    assert vectors.dtype == np.float32
    assert not vectors[0].any()
    # Of length 1, but for the last number: what the day of publication is worth.
    np.testing.assert_allclose(np.linalg.norm(vectors[1:, :-1], axis=1), 1, atol=1e-4)
    job = loaded.job
    moment = int(job.dataset.interactions.timestamp.max()) + 1
    columns = catalogue_at(job.dataset, job.data, job.features, moment)
    found = loaded.predict(BatchSource(columns, 64, shuffle=False))
    np.testing.assert_allclose(found[ITEM], vectors[1:], rtol=1e-4, atol=1e-5)
    assert summary["index"] == "none"


def test_candidates_are_the_best_of_what_somebody_may_see(run):
    loaded = load_run.load(run[0] / "run", "best", Console(quiet=True))
    dataset = loaded.job.dataset
    found = TowerRetriever(loaded)
    moment = moment_after(dataset)
    people = [person.of_row(dataset, user, moment) for user in (1, 4, 7)]
    people.append(person.of_rows(np.array([3, 9], np.int32), moment))
    rules = Rules(dataset)
    allowed = [rules.allowed(who, Filters(), moment) for who in people]
    items = np.load(run[0] / "run" / "item_vectors.npy", allow_pickle=False)
    # The latest state of a user in the log is what its bookmarks give.
    config = loaded.job.features
    states = FoldIn(dataset, loaded.job.data, config).states([p.bookmarks for p in people], moment)
    columns = catalogue_at(dataset, loaded.job.data, config, moment)
    columns = {name: column[:4] for name, column in columns.items()}
    columns["user"] = np.array([p.user for p in people], np.int32)
    columns["state"] = np.arange(4, dtype=np.int32)
    user = loaded.predict(BatchSource(columns, 64, shuffle=False), states)[USER]
    for count in (5, 100):
        chosen = found.candidates(people, allowed, count)
        for rows, vector, mine in zip(chosen, user, allowed, strict=True):
            open_to = np.flatnonzero(mine)
            score = items[open_to] @ vector
            assert len(rows) == min(count, len(open_to))
            assert set(rows.tolist()) <= set(open_to.tolist())
            best = np.sort(score)[::-1][: len(rows)]
            np.testing.assert_allclose(items[rows] @ vector, best, rtol=1e-4, atol=1e-5)


def test_mistakes_come_to_light_before_the_data_are_prepared(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"micro_batches: got 2, expected 1: the items"):
        train(config_of(tmp_path / "data", **{"train.micro_batches": 2}), tmp_path / "run")
    with pytest.raises(ValueError, match=r"config\.model: two towers temperature: got -1"):
        train(config_of(tmp_path / "data", **{"model.temperature": -1.0}), tmp_path / "run")
    monkeypatch.setattr(vector_index, "KINDS", {"faiss": ("no_such_package", "items.faiss")})
    with pytest.raises(ValueError, match=r"config\.export: index: got faiss, whose package"):
        train(config_of(tmp_path / "data", **{"export.index": "faiss"}), tmp_path / "run")
    assert not (tmp_path / "data").exists()
