"""The page of a finished run: what is on it, and that a browser can show it alone."""

import dataclasses
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
import small_world
from folders import picture
from ml_collections import ConfigDict
from rich.console import Console

from umair_jax import load_run, report, results, settings
from umair_jax.data import ranking
from umair_jax.data.batches import BatchSource
from umair_jax.data.ranking import RankingConfig
from umair_jax.data.splits import KINDS
from umair_jax.jobs.bookmarks import BookmarksJob, EvalConfig
from umair_jax.models.ranker import RankerConfig
from umair_jax.reporting import axes, cards, charts, measured, numbers, people, similar
from umair_jax.reporting.people import BOOKMARKED, PASSED, UNSEEN
from umair_jax.reporting.thumbnails import Thumbnails
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import logs, metrics, record, sharding
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import make_optimiser
from umair_jax.training.settings import FitConfig, TrainConfig

TINY = {
    "tower_widths": (8, 6),
    "modality_width": 6,
    "head_widths": (5,),
    "cross_layers": 1,
    "cross_rank": 2,
    "cross_experts": 2,
}
STEP = 30
SECTIONS = ("curves", "metrics", "calibration", "people", "neighbours")
MODALITIES = ("meta", "content", "style", "text")
EVIL = '<script src="https://example.org/x.js">&"\'</script>'
VOID = {"meta", "img", "br", "hr", "link", "input"}


def quiet():
    return Console(file=io.StringIO(), width=200)


class Page(HTMLParser):
    """Elements of a page; closes what is open in the right order, or fails."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.ids, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert len(values) == len(attributes), attributes
        self.elements.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag, kind=None):
        return [
            values
            for name, values in self.elements
            if name == tag and (kind is None or kind in values.get("class", "").split())
        ]


def alone(page):
    """Fails where a page would load something."""
    for tag, values in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "srcset", "href", "xlink:href", "poster", "data", "action"):
            assert values.get(name, "#").startswith(("#", "data:image/")), (tag, values)
        assert not [name for name in values if name.startswith("on")]
        assert "url(" not in values.get("style", "")


class Drawings:
    """Pictures of the made-up site; some have none."""

    def read(self, row):
        return picture(40 * row) if row % 3 else b""


def lines_of(names):
    """A made-up metrics.jsonl: six reports and two evaluations."""
    rng = np.random.default_rng(0)
    for step in range(5, STEP + 1, 5):
        yield {"step": step, "kind": "train", "loss": 1 / step, "grad_norm": rng.random()}
        if step % 15 == 0:
            values = {
                f"{name}{end}": 0.5 + 0.01 * k + shift
                for k, name in enumerate(results.SHOWN)
                for end, shift in (("", 0.0), ("_low", -0.1), ("_high", 0.1))
            }
            weights = {f"weight_{name}": float(rng.random()) for name in names}
            yield {"step": step, "kind": "valid", **values, **weights}
    yield {"step": STEP, "kind": "final/test", "auc": 0.7}


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    """A run that ended as it began: its folder, and what is loaded from it."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    world = dataclasses.replace(small_world.dataset(rows=256, seconds=150), images=Drawings())
    features = {"split": "temporal", "fractions": small_world.FRACTIONS}
    data = small_world.build(world, **features)
    given = TINY | bookmarks.shape_of(data.schema)
    task = BookmarksTask(data, settings.build(RankerConfig, given))
    fit = FitConfig(TrainConfig(batch_size=64, steps=STEP))
    config = ConfigDict({"task": "bookmarks", "features": features})
    job = BookmarksJob(config, world, data, task, fit, EvalConfig(64, 5))
    mesh = sharding.make_mesh(fit.mesh)
    init = states.initialiser(task, make_optimiser(fit.optim, STEP), fit.tables, 0)
    state = states.create(init, states.abstract_state(init, mesh, fit.mesh.rules))
    context = sharding.place_context(task.context(), mesh)
    loaded = load_run.LoadedRun(job, STEP, state, context, Predictor(task, mesh))

    workdir = tmp_path_factory.mktemp("run")
    record.write_config(workdir, settings.as_json(config))
    lines = [json.dumps(line) for line in lines_of(task.modality_names)]
    (workdir / logs.METRICS_FILE).write_text("\n".join(lines) + "\n")
    evals = {k: e.metrics(loaded.predict(e.source)) for k, e in job.evaluators().items()}
    results.write(workdir, {"best_step": STEP, **job.measured(evals)})
    yield workdir, loaded
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def write(run, monkeypatch):
    """Writes the page of the run, which needs no reading of checkpoint and bank."""
    monkeypatch.setattr(load_run, "load", lambda *_: run[1])
    monkeypatch.setattr(report.feature_bank, "load", lambda _: small_world.bank())

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


# People -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_be_shown_is_known_as_in_the_log(kind):
    """Asking about an example of the log at its own time gives its own columns."""
    world, config = small_world.dataset(rows=160), RankingConfig(kind, small_world.FRACTIONS)
    data = small_world.build(world, split=kind)
    log = world.interactions
    for row in data.rows("test")[::3]:
        found = ranking.columns_at(
            world, data, config, user=int(log.user[row]), state=int(data.columns["state"][row]),
            item=log.item[[row, 0]], moment=int(log.timestamp[row]),
        )  # fmt: skip
        assert list(found) == list(data.columns)
        for name, column in data.columns.items():
            assert found[name].dtype == column.dtype, name
            assert len(found[name]) == 2
            assert found[name][0] == (0 if name == "label" else column[row]), name


@pytest.mark.parametrize("kind", KINDS)
def test_recommendations_equal_the_obvious_way(kind):
    world, config = small_world.dataset(rows=160), RankingConfig(kind, small_world.FRACTIONS)
    items = dataclasses.replace(
        world.items, published=np.array([-1, *np.arange(small_world.ITEMS) * 3 - 1])
    )
    world = dataclasses.replace(world, items=items)
    data, log = small_world.build(world, split=kind), world.interactions
    score = np.random.default_rng(0).random(small_world.ITEMS + 1).round(1).astype(np.float32)
    asked = []

    def predict(source):
        asked.append(source)
        item = source.column("item")
        return {"probability": score[item], "weights": np.stack([score[item], 1 - score[item]], 1)}

    rows = data.rows("test")
    test = predict(ranking_source(data, rows))
    for user in np.unique(log.user[rows]):
        person = people.recommend(world, data, config, int(user), predict, 4, test)
        mine = [k for k in rows if log.user[k] == user]
        moment = log.timestamp[mine[0]]
        known, before = set(), []
        for k in range(len(log)):
            if log.user[k] == user and log.label[k] == 1:
                if log.timestamp[k] < moment:
                    before.append((log.timestamp[k], k))
                if log.timestamp[k] < moment or k not in rows:
                    known.add(int(log.item[k]))
        assert person.before == len(before)
        assert person.recent == tuple(log.item[k] for _, k in sorted(before)[::-1][: people.SHOWN])
        open_to = [
            k for k in range(1, small_world.ITEMS + 1)
            if k not in known and items.published[k] <= moment
        ]  # fmt: skip
        assert person.candidates == len(open_to)
        if open_to:
            np.testing.assert_array_equal(asked[-1].column("item"), open_to)
            assert (asked[-1].column("state") == data.columns["state"][mine[0]]).all()
        best = sorted(open_to, key=lambda k: -score[k])[: people.SHOWN]
        assert [pick.item for pick in person.recommended] == best
        for pick in person.recommended:
            assert pick.probability == score[pick.item]
            assert pick.weights == (score[pick.item], 1 - score[pick.item])
            seen = [k for k in mine if log.item[k] == pick.item]
            shown = [k for k in seen if not log.sampled[k] and log.label[k] == 0]
            marked = [k for k in seen if log.label[k] == 1]
            assert pick.outcome == (BOOKMARKED if marked else PASSED if shown else UNSEEN)
        assert person.test_examples == len(mine)
        assert person.test_bookmarks == log.label[mine].sum()
        assert person.mean_weights[0] == pytest.approx(score[log.item[mine]].mean())
        assert person.true_mixture == tuple(world.users.true_mixture[user])


def ranking_source(data, rows):
    return BatchSource(data.columns, 8, shuffle=False, index=rows)


def test_people_are_drawn_among_those_with_enough_examples():
    data = small_world.build(small_world.dataset(rows=160))
    examples = np.bincount(data.columns["user"][data.split == 2])
    enough = np.flatnonzero(examples >= people.ENOUGH)
    if not len(enough):
        enough = np.flatnonzero(examples)
    np.testing.assert_array_equal(people.choose(data, 1000), enough)
    drawn = people.choose(data, 2)
    np.testing.assert_array_equal(drawn, people.choose(data, 2))
    assert len(set(drawn)) == 2
    assert set(drawn) <= set(enough)
    with pytest.raises(ValueError, match="users: got 0"):
        people.choose(data, 0)


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


# Curves and calibration -------------------------------------------------------------------------


def test_curves_are_the_logged_points(run):
    lines = logs.read(run[0])
    found = measured.curves(lines)
    assert [curve.name for curve in found["weights"]] == list(MODALITIES)
    kinds = {
        "loss": [("train", "loss"), ("valid", "log_loss")],
        "auc": [("valid", "auc")],
        "weights": [("valid", f"weight_{name}") for name in MODALITIES],
    }
    for chart, keys in kinds.items():
        for curve, (kind, metric) in zip(found[chart], keys, strict=True):
            logged = [(line["step"], line[metric]) for line in lines if line["kind"] == kind]
            assert list(zip(curve.step, curve.value, strict=True)) == logged
            assert len(logged) == (6 if kind == "train" else 2)
    train_loss, valid_loss = found["loss"]
    page = Page(
        charts.over_steps([("first", train_loss), ("second", valid_loss)], 6, "Loss", "", "x")
    )
    one, two = page.all("polyline")
    assert [len(line["points"].split()) for line in (one, two)] == [6, 2]
    assert len(page.all("circle")) == len(page.all("line", "whisker")) == 2
    # Equal steps apart, and lower where the loss is lower.
    points = np.array([pair.split(",") for pair in one["points"].split()], float)
    np.testing.assert_allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.02)
    np.testing.assert_array_equal(np.argsort(points[:, 1]), np.argsort(-train_loss.value))


def test_points_that_are_no_numbers_are_counted():
    lines = [
        {"step": 1, "kind": "valid", "auc": None},
        {"step": 2, "kind": "valid", "auc": 0.5, "auc_low": 0.4, "auc_high": None},
        {"step": 3, "kind": "train", "loss": 0.1},
    ]
    (auc,) = measured.curves(lines)["auc"]
    assert (auc.step.tolist(), auc.value.tolist(), auc.missing, auc.low) == ([2], [0.5], 1, None)
    text = charts.over_steps([("first", auc)], None, "AUC", "AUC", "x")
    assert "1 logged points are not finite" in text
    assert len(Page(text).all("circle")) == 1
    assert "No points were logged" in charts.over_steps([], None, "AUC", "AUC", "x")


def test_bins_agree_with_numpy_and_with_the_metric():
    rng = np.random.default_rng(0)
    probability = np.append(rng.beta(1, 3, 500), [0.0, 1.0, 1.0]).astype(np.float32)
    label = (rng.random(503) < probability).astype(np.int8)
    found = measured.calibration(label, probability)
    assert found.count.sum() == 503
    exact = probability.astype(np.float64)
    for k, (low, high) in enumerate(zip(found.edges, found.edges[1:], strict=False)):
        last = k == len(found.count) - 1
        inside = (exact >= low) & ((exact < high) | last)
        assert found.count[k] == inside.sum()
        if inside.any():
            assert found.predicted[k] == pytest.approx(exact[inside].mean())
            assert found.observed[k] == pytest.approx(label[inside].mean())
        else:
            assert np.isnan([found.predicted[k], found.observed[k]]).all()
    assert found.error == pytest.approx(metrics.ece(label, probability))
    there = int((found.count > 0).sum())
    page = Page(charts.calibration(found, "x"))
    assert len(page.all("circle")) == len(page.all("rect", "count")) == there
    table = Page(numbers.bins(found))
    assert f"{found.count.max():,}" in table.words
    with pytest.raises(ValueError, match="got 0 labels and 0 probabilities; expected one of each"):
        measured.calibration(label[:0], probability[:0])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.781, 0.826, [0.79, 0.8, 0.81, 0.82]),
     (0, 1500, [0, 500, 1000, 1500]), (-3, 5, [-2, 0, 2, 4])],
)  # fmt: skip
def test_ticks_are_round(low, high, expected):
    assert axes.ticks(low, high) == pytest.approx(expected)


def test_labels_have_the_decimals_they_need():
    assert axes.label(1500, 500) == "1,500"
    assert axes.label(0.8, 0.05) == "0.80"
    assert axes.label(-0.004, 0.002) == "-0.004"
    with pytest.raises(ValueError, match="expected low < high"):
        axes.ticks(1, 1)


# Neighbours -------------------------------------------------------------------------------------


def test_neighbours_are_the_nearest_by_cosine():
    bank = small_world.bank()
    there = np.flatnonzero(bank.has_image)
    found = similar.neighbours(bank, 4, 3)
    assert len(found) == 4
    for one in found:
        assert one.item in there
        for name in ("style", "content"):
            vectors = getattr(bank, name)
            unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
            others = [k for k in there if k != one.item]
            best = sorted(others, key=lambda k: -unit[k] @ unit[one.item])[:3]
            assert list(one.nearest[name]) == best
    assert similar.neighbours(bank, 4, len(there)) == ()


def test_bars_say_what_fits():
    text = cards.bar((0.004, 0.296, 0.7), ("meta", "content", "style"))
    page = Page(text)
    assert page.words == ["30%", "style 70%"]
    assert re.search(r'aria-label="meta 0%, content 30%, style 70%"', text)
    assert Page(cards.bar((0.5, 0.5), ("a", "b"), small=True)).words == []
