"""The page of a finished run: what is on it, and that a browser can show it alone."""

import dataclasses
import html
import io
import json
import shutil

import pytest
import small_run
import small_world
from ml_collections import ConfigDict
from pages import Page, alone, made_up_lines
from rich.console import Console

from umair_jax import load_run, report, results, settings
from umair_jax.data import feature_bank, ranking
from umair_jax.data.batches import BatchSource
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.reporting import cards, numbers, people, similar
from umair_jax.reporting.people import BOOKMARKED
from umair_jax.reporting.thumbnails import Thumbnails
from umair_jax.training import logs, record

SECTIONS = ("curves", "metrics", "calibration", "people", "neighbours")
MODALITIES = ("meta", "content", "style", "text")
EVIL = '<script src="https://example.org/x.js">&"\'</script>'


def quiet():
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    """A run that ended as it began: its folder, and what is loaded from it."""
    loaded = small_run.loaded()
    job, config = loaded.bookmarks, loaded.job.config
    workdir = tmp_path_factory.mktemp("run")
    record.write_config(workdir, settings.as_json(config))
    lines = [json.dumps(line) for line in made_up_lines(job.task.modality_names, small_run.STEP)]
    (workdir / logs.METRICS_FILE).write_text("\n".join(lines) + "\n")
    evals = {k: e.metrics(loaded.predict(e.source)) for k, e in job.evaluators().items()}
    results.write(workdir, {"best_step": small_run.STEP, **job.measured(evals)})
    return workdir, loaded


@pytest.fixture
def write(run, monkeypatch):
    """Writes the page of the run, which needs no reading of checkpoint and bank."""
    monkeypatch.setattr(load_run, "load", lambda *_: run[1])
    monkeypatch.setattr(feature_bank, "load", lambda _: small_world.bank())

    def function(workdir=run[0], **options):
        return report.report(workdir, console=quiet(), **options).read_text("utf-8")

    return function


# The page ---------------------------------------------------------------------------------------


def test_the_page_has_everything_and_needs_nothing(run, write):
    text = write(users=3)
    page = Page(text)
    alone(page)
    assert "@import" not in text
    assert "url(" not in text.split("</style>")[0]
    assert len(page.ids) == len(set(page.ids))
    assert [values["id"] for values in page.all("section")] == list(SECTIONS)
    assert {values["href"] for values in page.all("a")} == {f"#{name}" for name in SECTIONS}
    assert len(page.all("article", "person")) == 3
    assert len(page.all("article", "query")) == similar.QUERIES
    assert all(values["alt"] for values in page.all("img"))
    assert all(set(v["aria-labelledby"].split()) <= set(page.ids) for v in page.all("svg"))
    assert len(text) < 4e6
    said = " ".join(" ".join(page.words).split())
    assert "Simulated bookmarks." in said
    assert "ground truth of the simulation, which the model never sees" in said
    summary = json.loads((run[0] / results.SUMMARY).read_text())
    for part in ("validation", "test", "constant", "oracle"):
        assert f"{summary[part]['auc']:.4f}" in said
    for name in ("auc_low", "auc_high"):
        assert f"{summary['test'][name]:.3f}" in said
    # Every recommendation of this model has its weights, every person the mean ones.
    picks = page.all("span", "score")
    assert len(page.all("div", "small")) == len(picks) > 0
    assert text.count("The model's mean weights") == 3


def test_a_model_without_weights_has_no_bars_of_them(run, write, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copy(run[0] / record.CONFIG_FILE, workdir)
    summary = results.read(run[0])
    del summary["modality_weights"]
    results.write(workdir, summary)
    plain = run[1].predict
    monkeypatch.setattr(type(run[1].job.task), "modality_names", ())
    monkeypatch.setattr(
        load_run.LoadedRun, "predict", lambda _, s: {"probability": plain(s)["probability"]}
    )
    page = Page(write(workdir, users=2, out=tmp_path / "elsewhere" / "page.html"))
    alone(page)
    assert not page.all("div", "small")
    assert len(page.all("div", "bar")) == 2  # the true mixtures
    assert len(page.all("ol", "picks")) == 2
    assert "No points were logged." in "".join(page.words)  # there is no metrics.jsonl either
    assert not (workdir / report.PAGE).exists()


def test_the_banner_tells_real_from_simulated():
    assert "made up" in numbers.banner(True, "here")
    real = numbers.banner(False, EVIL)
    assert "real users" in real
    assert "imulated" not in real
    assert "<script" not in real


def test_a_table_of_another_checkpoint_says_so(run, write, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    shutil.copy(run[0] / record.CONFIG_FILE, workdir)
    results.write(workdir, results.read(run[0]) | {"evaluated_step": 1234})
    assert "This table is of update 1,234" in write(workdir, users=1)
    assert "This table is of" not in write(users=1)


def test_runs_that_it_cannot_be_about_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="expected the folder of a run; train first"):
        report.report(tmp_path, console=quiet())
    with pytest.raises(ValueError, match="users: got 0; expected 1 or more"):
        report.report(run[0], users=0, console=quiet())
    path = tmp_path / record.CONFIG_FILE
    path.write_text(json.dumps({"config": {"task": "image_tags"}}))
    with pytest.raises(ValueError, match=r"got a run of the task 'image_tags'.*configs/base\.py"):
        report.report(tmp_path, console=quiet())
    shutil.copy(run[0] / record.CONFIG_FILE, path)
    with pytest.raises(ValueError, match=r"got no summary\.json; expected a finished run; let the"):
        report.report(tmp_path, console=quiet())
    assert [found.name for found in tmp_path.iterdir()] == [record.CONFIG_FILE]


def test_whatever_the_data_say_is_text():
    world = small_world.dataset()
    items = dataclasses.replace(
        world.items,
        title=("", *[EVIL] * small_world.ITEMS),
        artist=("", *[EVIL] * small_world.ITEMS),
    )
    users = dataclasses.replace(world.users, user_id=("", *[EVIL] * small_world.USERS))
    world = dataclasses.replace(world, items=items, users=users)
    pick = people.Recommendation(2, 0.5, (0.1, 0.2, 0.3, 0.4), BOOKMARKED)
    person = people.Person(1, 1, (3,), 4, 2, 9, (pick,), (0.25,) * 4, (0.25,) * 4)
    pictures = Thumbnails(world)
    near = similar.Neighbours(1, {"style": (2, 3), "content": (4, 5)})
    text = cards.person(person, 1, world, pictures, MODALITIES)
    text += cards.neighbours([near], world, pictures)
    page = Page(text)
    alone(page)
    assert EVIL in "".join(page.words)
    assert len(page.all("span", "no-picture")) == 2 + 5
    assert all(EVIL in values["aria-label"] for values in page.all("span", "no-picture"))
    assert html.escape(EVIL) in text


def test_scores_are_the_predictions_of_the_evaluation(run):
    """A test example, asked about as a recommendation is, gets the probability it was given."""
    job = run[1].job
    config = RankingConfig(fractions=small_world.FRACTIONS)
    source = job.evaluators()["test"].source
    expected = run[1].predict(source)["probability"]
    for k in (0, 20):
        row = source.index[k]
        log = job.dataset.interactions
        columns = ranking.columns_at(
            job.dataset, job.data, config, user=int(log.user[row]),
            state=int(job.data.columns["state"][row]), item=log.item[[row]],
            moment=int(log.timestamp[row]),
        )  # fmt: skip
        found = run[1].predict(BatchSource(columns, 64, shuffle=False))
        assert found["probability"][0] == pytest.approx(expected[k], abs=2e-6)


def test_a_job_names_its_features_and_the_folder_of_its_vectors(run):
    job = run[1].job
    assert job.features == RankingConfig(split="temporal", fractions=small_world.FRACTIONS)
    given = ConfigDict({"extract": {"seed": 1}, "data": {"root": "elsewhere"}})
    other = dataclasses.replace(job, config=given)
    assert other.extract.seed == 1
    assert other.bank_folder.parts[:2] == ("elsewhere", "banks")
    assert other.bank_folder.name != job.bank_folder.name
