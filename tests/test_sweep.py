"""A table from the config to the files: search, seeds, resume, statistics, formats."""

import csv
import dataclasses
import io
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console
from test_train import ROOT, TINY

from configs import ablation_table, ablations, baselines, paper_table
from umair_jax import results, settings
from umair_jax import sweep as front_door
from umair_jax.data.fields import Side
from umair_jax.data.schema_config import SchemaConfig
from umair_jax.encoding import ExtractConfig
from umair_jax.jobs import bookmarks
from umair_jax.sweeps import plots, search, segments, statistics, table, winners
from umair_jax.sweeps.config import SearchConfig, build, flat, override, row_config
from umair_jax.sweeps.runs import Run, Runner, SweepInterruptedError
from umair_jax.sweeps.table import Line
from umair_jax.tasks.bookmarks import shape_of
from umair_jax.training import metrics

SMALL = {
    **{key: value for key, value in TINY.items() if not key.startswith(("model.", "train."))},
    "train.steps": 6,
    "train.epochs": 0.0,
    "train.batch_size": 64,
    "train.eval_every_steps": 6,
    "train.checkpoint_every_steps": 6,
    "eval.bootstrap_draws": 0,
}


def nested(values):
    found = {}
    for name, value in values.items():
        node = found
        *path, leaf = name.split(".")
        for step in path:
            node = node.setdefault(step, {})
        node[leaf] = value
    return found


def tiny(root, **changes):
    """Two rows on forty drawings, two seeds, two trials each."""
    config = ConfigDict(
        {
            "title": "Two rows",
            "reference": "fm",
            "seeds": (0, 1),
            "draws": 40,
            "overrides": nested(SMALL | {"data.root": str(root)}),
            "search": {
                "trials": 2,
                "seed": 0,
                "space": {"optim": {"learning_rate": (1e-3, 4e-3)}, "model": {"dropout": (0.0,)}},
                "winners": "",
            },
        }
    )
    config.rows = ConfigDict(sort_keys=False)
    config.rows.fm = paper_table.row("configs/baselines.py:fm,sparse,on=smoke", "FM", "ids")
    config.rows.lr = paper_table.row("configs/baselines.py:lr,sparse,on=smoke", "LR_1 & 2", "ids")
    with config.unlocked():
        config.update(changes)
    return config


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    text = io.StringIO()
    config = tiny(root / "data")
    front_door.sweep(config, root / "out", Console(file=text, width=120))
    return config, root / "out", text.getvalue()


# End to end -------------------------------------------------------------------------------------


def test_a_sweep_writes_its_tables(swept):
    config, out, text = swept
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text("utf-8"))))
    assert list(rows[0]) == list(table.CSV_COLUMNS)
    assert [row["name"] for row in rows] == ["FM", "LR_1 & 2"]
    assert rows[0]["p_value"] == ""
    assert 0 < float(rows[1]["p_value"]) <= 1
    made = build(config)
    for name, row in zip(made.rows, rows, strict=True):
        auc = []
        for seed in made.seeds:
            chosen, _ = winners.chosen(made, out, name, Runner(out / "runs"))
            chosen.seed = seed
            run = Runner(out / "runs").done(chosen)
            predicted = run.predictions()
            auc.append(metrics.auc(predicted["label"], predicted["probability"]))
            assert run.summary["test"]["auc"] == pytest.approx(auc[-1])
            assert run.summary["flops_per_example"] > 0
        assert float(row["auc_mean"]) == pytest.approx(np.mean(auc))
        assert float(row["auc_std"]) == pytest.approx(np.std(auc, ddof=1))
        assert int(row["seeds"]) == 2
    markdown = (out / "table.md").read_text("utf-8")
    assert "Simulated bookmarks" in markdown
    assert f"| FM | ids | {float(rows[0]['auc_mean']):.4f} ± " in markdown
    assert r"LR\_1 \& 2 & ids" in (out / "table.tex").read_text("utf-8")
    for name in ("auc_params", "auc_flops", "auc_examples_per_second", "auc_by_activity"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "[4/4] lr, seed 1: test AUC" in text
    parts = json.loads((out / "segments.json").read_text("utf-8"))
    assert set(parts["activity"]) == set(segments.ACTIVITY)
    assert set(parts["taste"]) <= set(segments.TASTES)


def test_the_search_is_kept_and_its_winner_trained(swept):
    config, out, _ = swept
    found = json.loads((out / "winners.json").read_text("utf-8"))
    assert found["space"] == json.loads(json.dumps(config.search.space.to_dict()))
    for row in found["rows"].values():
        assert row["trials"][0]["options"] == {}
        # Models without dropout are not asked about it.
        assert row["trials"][1]["options"].keys() == {"optim.learning_rate"}
        best = max(row["trials"], key=lambda trial: trial["valid_auc"])
        assert (row["options"], row["valid_auc"]) == (best["options"], best["valid_auc"])
    # Four trials, and seed 1 of each winner: seed 0 of a winner is the trial itself.
    assert len(list((out / "runs").iterdir())) == 6


def test_another_search_does_not_take_over_winners(swept, tmp_path):
    config, out, _ = swept
    found = []
    for trials in (2, 0):
        other = ConfigDict(config.to_dict())
        other.search.trials = trials
        made = build(other)
        chosen = [winners.chosen(made, out, name, Runner(out / "runs"))[1] for name in made.rows]
        found.append((any(chosen), bool(winners.as_json(made, out))))
    known = json.loads((out / "winners.json").read_text("utf-8"))["rows"]
    assert found == [(any(row["options"] for row in known.values()), True), (False, False)]


def test_a_second_sweep_trains_nothing_and_one_more_seed_trains_its_own(swept, monkeypatch):
    config, out, _ = swept
    before = (out / "table.csv").read_text("utf-8")
    trained = []
    monkeypatch.setattr("umair_jax.sweeps.runs.train", lambda *a, **k: trained.append(a) or {})
    text = io.StringIO()
    front_door.sweep(config, out, Console(file=text, width=120))
    assert not trained
    assert "; read" in text.getvalue()
    assert (out / "table.csv").read_text("utf-8") == before
    monkeypatch.setattr(
        "umair_jax.sweeps.runs.train",
        lambda c, w, **k: trained.append(c.seed) or {"interrupted": 1},
    )
    more = ConfigDict(config.to_dict())
    more.seeds = (0, 1, 2)
    with pytest.raises(SweepInterruptedError, match="interrupted; the same command goes on"):
        front_door.sweep(more, out, Console(quiet=True))
    assert trained == [2]


def test_winners_of_an_earlier_search_are_used(swept, tmp_path):
    _, out, _ = swept
    again = tiny("unused")
    again.search.trials = 0
    again.search.winners = str(out / "winners.json")
    known = json.loads((out / "winners.json").read_text("utf-8"))["rows"]
    made = build(again)
    for name in made.rows:
        chosen, _ = winners.chosen(made, tmp_path, name, Runner(tmp_path))
        own = row_config(name, made.rows[name], made).optim.learning_rate
        expected = known[name]["options"].get("optim.learning_rate", own)
        assert chosen.optim.learning_rate == expected
    again.search.winners = str(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"search.winners: got .*none.json.*expected winners.json"):
        winners.chosen(build(again), tmp_path, "fm", Runner(tmp_path))


def test_workers_leave_rows_to_each_other(swept, monkeypatch):
    """A row that somebody is at is skipped; the lock goes with its process."""
    config, out, _ = swept
    lock = out / "locks" / "fm"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'w'); "
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()", str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        holder.stdout.readline()
        text = io.StringIO()
        front_door.train_rows(build(config), out, Console(file=text, width=120))
        assert "lr, seed" in text.getvalue()
        assert "fm, seed" not in text.getvalue()
    finally:
        holder.kill()
        holder.wait()
    text = io.StringIO()
    front_door.train_rows(build(config), out, Console(file=text, width=120))
    assert "fm, seed" in text.getvalue()


def test_workers_that_end_early_are_told(monkeypatch):
    class Ended:
        def __init__(self, command, env):
            assert command[-1] == "--worker"
            assert env["UMAIR_JAX_CORES"] in ("0/2", "1/2")
            self.code = int(env["UMAIR_JAX_CORES"][0]) * code
            self.told = False
            started.append(self)

        def wait(self):
            if stop:
                os.kill(os.getpid(), stop)
            return self.code

        def terminate(self):
            self.told = True

    stop, started = 0, []
    places = [{"UMAIR_JAX_CORES": "0/2"}, {"UMAIR_JAX_CORES": "1/2"}]
    monkeypatch.setattr(front_door, "_places", lambda workers: places)
    monkeypatch.setattr(front_door.subprocess, "Popen", Ended)
    code = 0
    front_door._run_workers(2, Console(quiet=True))
    code = 130
    with pytest.raises(SweepInterruptedError, match="interrupted; the same command goes on"):
        front_door._run_workers(2, Console(quiet=True))
    code = 2
    with pytest.raises(ValueError, match=r"got the exit codes \[0, 2\]; expected 0"):
        front_door._run_workers(2, Console(quiet=True))
    # A signal is passed on, and waited for; Ctrl-C reaches them by itself.
    for number, told in ((signal.SIGTERM, True), (signal.SIGINT, False)):
        stop, code, started = number, 130, []
        with pytest.raises(SweepInterruptedError):
            front_door._run_workers(2, Console(quiet=True))
        assert [process.told for process in started] == [told, told]


def test_some_rows_of_a_table():
    config = paper_table.get_config("")
    front_door.only(config, ["fm", "lr_sparse"])
    assert [*config.rows] == ["umair_fps", "lr_sparse", "fm"]
    with pytest.raises(ValueError, match=r"--rows: got fn; expected some of umair_fps, lr_sparse"):
        front_door.only(config, ["fm", "fn"])


def test_the_front_door_says_what_is_wrong():
    command = [sys.executable, "-m", "umair_jax.sweep", "--config=configs/paper_table.py"]
    found = subprocess.run(
        [*command, "--config.reference=us", "--worker"], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "error: config: reference: got 'us', expected one of umair_fps" in found.stderr


def test_rows_that_say_the_same_share_a_finished_run(tmp_path):
    config = ConfigDict({"seed": 0, "x": 1})
    runner = Runner(tmp_path)
    folder = runner.folder("as it is", config)
    folder.mkdir()
    results.write(folder, {"test": {"auc": 0.5}})
    assert runner.done(config) is None  # not finished
    (folder / bookmarks.PREDICTIONS).touch()
    assert runner.done(config) == Run(folder, {"test": {"auc": 0.5}})
    assert runner.folder("another", config) != folder
    config.seed = 1
    assert runner.done(config) is None


# Configs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "arg"),
    [(paper_table, ""), (paper_table, "movielens:cold_item"), (ablation_table, "")]
    + [(ablation_table, "modalities,on=movielens:cold_item")]
    + [(ablation_table, group) for group in ablations.GROUPS]
    + [(ablation_table, "umcm,on=movielens:temporal")],
)
def test_every_row_of_the_tables_is_a_config_that_builds(module, arg):
    made = build(module.get_config(arg))
    for name, row in made.rows.items():
        config = row_config(name, row, made)
        assert not config.log.progress
        schema = settings.build(SchemaConfig, config.schema.to_dict(), "schema").schema()
        bookmarks.ranker(config.model.to_dict(), shape_of(schema))
        settings.build(ExtractConfig, config.extract.to_dict(), "extract")
    if "movielens" in arg:
        assert {row_config(n, r, made).data.source for n, r in made.rows.items()} == {"movielens"}


def test_the_table_has_every_baseline_with_and_without_vectors():
    rows = build(paper_table.get_config()).rows
    for name in baselines.NAMES:
        assert name in rows
        assert (f"{name}_sparse" in rows) == (name not in ("popularity", "item_knn"))


def test_winners_of_a_config_are_used_where_they_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(paper_table, "WINNERS", tmp_path)
    assert paper_table.get_config("movielens:cold_item").search.winners == ""
    kept = tmp_path / "movielens_cold_item.json"
    kept.write_text("{}")
    assert paper_table.get_config("movielens:cold_item").search.winners == str(kept)
    # Another split of the same films has no search of its own.
    assert paper_table.get_config("movielens:temporal").search.winners == str(kept)
    own = tmp_path / "movielens_temporal.json"
    own.write_text("{}")
    assert paper_table.get_config("movielens:temporal").search.winners == str(own)
    assert paper_table.get_config().search.winners == ""


def test_an_ablation_changes_what_it_says():
    config = ablations.get_config("modalities=content+text")
    assert not config.model.meta
    assert "img_styles" in config.schema.drop
    assert "img_semantics" not in config.schema.drop
    assert config.schema.interest_vectors == ("text", "content")
    without = ablations.get_config("without_meta")
    schema = settings.build(SchemaConfig, without.schema.to_dict(), "schema").schema()
    assert not without.model.meta
    assert not schema.sparse(Side.ITEM)
    assert [field.name for field in schema.sparse(Side.USER)] == ["user_id", "username"]
    alone = ablations.get_config("modalities=meta,on=movielens")
    assert (alone.model.fm, alone.model.meta) == ("embeddings", True)
    assert ablations.get_config("without_text,on=movielens").model.fm == "vectors"
    assert ablations.get_config("plain_mlp").model.cross == "none"
    style = ablations.get_config("style_mean").extract.image.style
    assert (style.pool, style.stages) == ("mean", (1,))
    on = ablations.get_config("umcm_static,on=movielens:temporal")
    assert (on.features.split, on.model.umcm) == ("temporal", "static")


def test_a_plain_network_has_as_many_parameters_as_the_crosses():
    from flax import nnx

    def size(name):
        model = ablations.get_config(name).model.to_dict()
        config = bookmarks.ranker(model, {})
        state = nnx.eval_shape(lambda: config.create(nnx.Rngs(0)))
        params = nnx.state(state, nnx.Param)
        return sum(leaf.size for leaf in nnx.to_flat_state(params).leaves)

    assert size("plain_mlp") == pytest.approx(size("cross_mixture"), rel=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "x"}, "config: reference: got 'x', expected one of fm, lr"),
        ({"seeds": (1, 1)}, r"seeds: got \(1, 1\), expected one or more, each once"),
        ({"draws": 0}, "draws: got 0, expected 1 or more"),
        ({"overrides": {"optim": {"learning_rats": 1.0}}}, "got 'optim.learning_rats', expected"),
        ({"overrides": {"checkpoint": {"keep": "six"}}}, "overrides.checkpoint.keep: got 'six'"),
        ({"search": {"trials": -1}}, "trials: got -1, expected 0 or more"),
        ({"search": {"trials": 1, "winners": "a.json"}}, "got 1 beside winners 'a.json'"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(changes, message):
    with pytest.raises(ValueError, match=message):
        build(tiny("unused", **changes))


def test_a_config_that_is_not_there_is_told():
    config = tiny("unused")
    config.rows.lr.config = "configs/none.py"
    with pytest.raises(ValueError, match=r"rows.lr.config: got 'configs/none.py', expected a file"):
        build(config)
    for module, arg in ((ablations, "without_hope"), (ablation_table, "hope")):
        with pytest.raises(ValueError, match=f"got the argument '{arg}'; expected one of"):
            module.get_config(arg)
    with pytest.raises(ValueError, match="got on='nowhere'; expected a file of configs/"):
        baselines.get_config("lr,on=nowhere")


# Search -----------------------------------------------------------------------------------------

SPACE = {"optim": {"learning_rate": (1.0, 2.0, 3.0)}, "model": {"dropout": (0.1, 0.2), "x": (1,)}}


def searched(name="a", trials=5, seed=0, space=SPACE, dropout=0.1):
    config = ConfigDict({"optim": {"learning_rate": 1.0}, "model": {"dropout": dropout}})
    return search.settings_of(name, config, SearchConfig(trials, seed, space))


def test_settings_are_drawn_once_each_within_the_budget():
    found = searched()
    assert found == searched()
    assert found[0] == {}
    assert len(found) == 5
    assert len({tuple(trial.items()) for trial in found}) == 5
    assert {"optim.learning_rate": 1.0, "model.dropout": 0.1} not in found  # the row's own
    assert all(set(trial) == {"optim.learning_rate", "model.dropout"} for trial in found[1:])
    assert found != searched("b")
    assert found != searched(seed=1)
    assert len(searched(trials=99)) == 6  # all there are
    assert len(searched(trials=99, dropout=0.5)) == 7  # and an own one that the space lacks
    assert searched(trials=1) == [{}]
    assert searched(trials=0) == []


def test_the_best_setting_wins_and_the_earlier_of_equals():
    trials = [{}, {"a": 1}, {"a": 2}, {"a": 3}]
    values = {None: 0.5, 1: 0.7, 2: 0.7, 3: 0.6}
    found = search.best(trials, lambda options: values[options.get("a")])
    assert (found["options"], found["valid_auc"]) == ({"a": 1}, 0.7)
    assert [trial["valid_auc"] for trial in found["trials"]] == [0.5, 0.7, 0.7, 0.6]


def test_settings_that_diverge_lose_and_do_not_end_the_search():
    values = {None: -math.inf, 1: 0.6, 2: -math.inf}
    found = search.best([{}, {"a": 1}, {"a": 2}], lambda options: values[options.get("a")])
    assert found["options"] == {"a": 1}
    assert [trial["valid_auc"] for trial in found["trials"]] == [None, 0.6, None]
    json.dumps(found, allow_nan=False)
    with pytest.raises(ValueError, match="got no validation AUC with any of"):
        search.best([{}], lambda _: -math.inf)


def test_a_trial_that_diverges_is_the_worst(tmp_path):
    made = build(tiny("unused"))
    own = row_config("lr", made.rows["lr"], made).optim.learning_rate

    class Diverging(Runner):
        def __call__(self, name, config):
            if config.optim.learning_rate == own:
                raise FloatingPointError("loss is nan")
            return Run(tmp_path, {"validation": {"auc": 0.5}})

    chosen, options = winners.chosen(made, tmp_path, "lr", Diverging(tmp_path))
    assert options["optim.learning_rate"] in (1e-3, 4e-3)
    assert chosen.optim.learning_rate == options["optim.learning_rate"]
    # Reading what was found trains nothing.
    assert winners.chosen(made, tmp_path, "lr", None)[1] == options
    assert winners.chosen(made, tmp_path, "fm", None)[1] == {}


@pytest.mark.parametrize(
    ("said", "given", "workers", "places"),
    [
        ("cpu 1", None, 2, [{"UMAIR_JAX_CORES": "0/2"}, {"UMAIR_JAX_CORES": "1/2"}]),
        ("gpu 2", None, 2, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        ("gpu 2", "2,3", 2, [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "3"}]),
        (
            "gpu 1", "5", 3,
            [{"CUDA_VISIBLE_DEVICES": "5", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.300"}] * 3,
        ),
    ],
)  # fmt: skip
def test_workers_have_places_of_their_own(said, given, workers, places, monkeypatch):
    answer = subprocess.CompletedProcess([], 0, stdout=f"a notice\n{said}\n")
    monkeypatch.setattr(front_door.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert front_door._places(workers) == places


def test_overrides_reach_their_option():
    config = ConfigDict({"a": {"b": 1, "c": {"d": (1, 2)}}})
    override(config, flat({"a": {"b": 5, "c": {"d": (3,)}}}), "here")
    assert config.to_dict() == {"a": {"b": 5, "c": {"d": (3,)}}}


# Statistics -------------------------------------------------------------------------------------


def examples(seed=0, users=50, each=20):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), each)
    label = rng.integers(0, 2, len(user))
    return rng, user, label


def probability(rng, label, signal):
    return 1 / (1 + np.exp(-(signal * (label - 0.5) + rng.normal(size=len(label)))))


def test_draws_are_those_of_repeated_users():
    rng, user, label = examples(users=12, each=5)
    p = [probability(rng, label, 1.0) for _ in range(2)]
    found = statistics.draws_of(label, user, p, draws=7, seed=3)
    counts = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=7)
    for k, count in enumerate(counts):
        rows = np.concatenate(
            [np.flatnonzero(user == u) for u in range(12) for _ in range(count[u])]
        )
        expected = np.mean([metrics.auc(label[rows], each[rows]) for each in p])
        assert found["auc"][k] == pytest.approx(expected)
        expected = np.mean([metrics.log_loss(label[rows], each[rows]) for each in p])
        assert found["log_loss"][k] == pytest.approx(expected)


def test_p_is_small_for_a_difference_and_evenly_spread_without_one():
    rng, user, label = examples()
    good, bad = (
        statistics.draws_of(label, user, [probability(rng, label, s)], 500) for s in (2, 1)
    )
    assert statistics.p_value(good["auc"] - bad["auc"]) == pytest.approx(2 / 501)
    assert statistics.p_value(bad["log_loss"] - good["log_loss"]) == pytest.approx(2 / 501)
    assert statistics.p_value(np.zeros(9)) == 1
    found = []
    for seed in range(60):  # two rankers of the same quality
        rng, user, label = examples(seed)
        one, two = (
            statistics.draws_of(label, user, [probability(rng, label, 1)], 99)["auc"] for _ in "ab"
        )
        found.append(statistics.p_value(one - two))
    assert np.mean(np.array(found) < 0.05) < 0.15
    assert 0.35 < np.mean(found) < 0.65


# Tables -----------------------------------------------------------------------------------------

LINE = Line(
    name="A_b",
    features="ids",
    seeds=3,
    auc_mean=0.81234,
    auc_std=0.001,
    log_loss_mean=0.45,
    log_loss_std=float("nan"),
    auc_gain=0.0123,
    log_loss_gain=-0.2,
    p_value=0.0004,
    p_log_loss=0.5,
    params=1_234_567,
    flops=5e6,
    examples_per_second=4321.4,
)


def test_numbers_are_written_as_they_are_read():
    sweep = dataclasses.replace(build(tiny("unused")), title="Title 5%")
    mine = dataclasses.replace(LINE, p_value=None, p_log_loss=None)
    markdown = table.as_markdown(sweep, [mine, LINE], simulated=False)
    assert "Real users" in markdown
    assert (
        "| A_b | ids | 0.8123 ± 0.0010 | 0.4500 | +1.23% | -20.00% | 0.0004 | 0.500 | 1,234,567 | "
        "5.00 | 4,321 |" in markdown
    )
    assert (
        "| A_b | ids | 0.8123 ± 0.0010 | 0.4500 |  |  |  |  | 1,234,567 | 5.00 | 4,321 |"
        in markdown
    )
    latex = table.as_latex(sweep, [LINE])
    assert r"A\_b & ids & 0.8123 $\pm$ 0.0010 & 0.4500 & +1.23\% & -20.00\%" in latex
    assert latex.count(r"\\") == 2
    rows = list(csv.DictReader(io.StringIO(table.as_csv([LINE]))))
    assert float(rows[0]["auc_mean"]) == LINE.auc_mean
    assert rows[0]["log_loss_std"] == ""


def test_names_beside_a_plot_keep_the_order_and_a_distance():
    values = [0.80, 0.801, 0.802, 0.5, 0.8005, 0.55]
    places = plots._spread(values, 0.48, 0.82)
    assert np.array_equal(np.argsort(places), np.argsort(values))
    gaps = np.diff(np.sort(places))
    assert gaps.min() > 0.034 * 0.34
    assert 0.48 <= min(places) <= max(places) <= 0.82
    crowded = plots._spread([0.5] * 60, 0.0, 1.0)
    assert 0 <= min(crowded) <= max(crowded) <= 1
    assert np.diff(np.sort(crowded)).min() > 0.01


def saved(folder, label, user, probability, **summary):
    folder.mkdir()
    np.savez(
        folder / bookmarks.PREDICTIONS,
        label=label,
        user=user,
        item=user,
        probability=probability,
        weights=np.zeros((len(label), 0)),
    )
    test = {
        "auc": metrics.auc(label, probability),
        "log_loss": metrics.log_loss(label, probability),
    }
    given = {"params": 10, "flops_per_example": 2.0, "examples_per_second": 5.0} | summary
    return Run(folder, {"test": test, **given})


def test_gains_are_relative_to_the_row_and_other_examples_are_refused(tmp_path):
    sweep = build(tiny("unused", seeds=(0,)))
    rng, user, label = examples()
    better, worse = (probability(rng, label, signal) for signal in (2, 1))
    runs = {
        "fm": [saved(tmp_path / "a", label, user, better)],
        "lr": [saved(tmp_path / "b", label, user, worse, examples_per_second=7.0)],
    }
    one, two = table.lines(sweep, runs)
    assert (one.p_value, one.auc_gain) == (None, 0.0)
    assert two.auc_gain == pytest.approx(one.auc_mean / two.auc_mean - 1)
    assert two.log_loss_gain == pytest.approx(1 - one.log_loss_mean / two.log_loss_mean)
    assert two.auc_gain > 0 < two.log_loss_gain
    assert two.p_value < 0.1
    assert np.isnan(two.auc_std)
    assert two.examples_per_second == 7
    runs["lr"] = [saved(tmp_path / "c", 1 - label, user, worse)]
    with pytest.raises(ValueError, match="row 'lr' was tested on other examples than 'fm'"):
        table.lines(sweep, runs)
    with pytest.raises(ValueError, match="got no runs of the reference 'fm'"):
        table.lines(sweep, {"lr": runs["lr"]})
