"""The front doors train and evaluate, from the command line to the numbers."""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from folders import START, picture, write
from ml_collections import ConfigDict
from rich.console import Console
from toy_task import leaves

from configs import smoke
from umair_jax import jobs, results, settings, train
from umair_jax.data import store
from umair_jax.evaluate_run import evaluate
from umair_jax.evaluate_weights import evaluate_weights
from umair_jax.jobs.bookmarks import PREDICTIONS
from umair_jax.report import report
from umair_jax.training import checkpoints, logs, record, sharding
from umair_jax.training import state as states
from umair_jax.training.metrics import evaluate_predictions
from umair_jax.training.optimisers import make_optimiser

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "configs" / "smoke.py"
STEPS, EVERY = 120, 10
TINY = {
    "data.limit": 40,
    "extract.image.image_size": 32,
    "extract.image.base_width": 2,
    "extract.image_batch": 16,
    "extract.calibration_images": 16,
    "extract.text.width": 16,
    "extract.text.output": 8,
    "schema.sizes.illust_id": 500,
    "schema.sizes.artist_id": 100,
    "schema.sizes.item_tag": 200,
    "schema.sizes.user_tag": 200,
    "schema.sizes.user_id": 1000,
    "schema.sizes.username": 1000,
    "model.tower_widths": (8,),
    "model.modality_width": 8,
    "model.head_widths": (8,),
    "model.cross": "vector",
    "model.cross_layers": 1,
    "train.batch_size": 128,
    "train.steps": STEPS,
    "train.eval_every_steps": 40,
    "train.checkpoint_every_steps": EVERY,
    "optim.learning_rate": 0.005,
    "eval.bootstrap_draws": 20,
    "log.progress": False,
    "log.sharding_table": False,
    "log.tensorboard": False,
}
# What makes the networks of TINY small.
SIZES = {k: v for k, v in TINY.items() if k.startswith(("model.", "schema.", "extract."))}
METRICS = ("auc", "log_loss", "gauc", "ndcg_at_10", "recall_at_10", "ece")
MODALITIES = ("meta", "content", "style", "text")


def quiet():
    return Console(file=io.StringIO(), width=80)


def config_of(root, **changes):
    config = smoke.get_config()
    config.update_from_flattened_dict(TINY | {"data.root": str(root)} | changes)
    return config


def arguments_of(root, **changes):
    values = TINY | {"data.root": str(root)} | changes
    return [f"--config={SMOKE}", *(f"--config.{name}={value}" for name, value in values.items())]


def command(*arguments):
    """The exit status of ``python -m umair_jax.train`` with these arguments, in this process."""
    before = set(flags.FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *arguments])
        try:
            settings.run_front_door(train.main, train.define_flags)
        except SystemExit as left:
            return left.code or 0
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()


@dataclasses.dataclass
class Run:
    """A finished run: where it is, its data, what it printed."""

    workdir: Path
    root: Path
    output: str
    environment: dict

    def train(self, workdir=None, restart=False, **changes):
        config = config_of(self.root, **changes)
        return train.train(config, workdir or self.workdir, restart, quiet())

    @property
    def summary(self):
        return json.loads((self.workdir / results.SUMMARY).read_text())


@pytest.fixture(scope="module")
def environment(compiled_once):
    """Compiles each program once, in half the time; for other processes as well."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield compiled_once | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def run(tmp_path_factory, environment):
    """One run through the command line, in the working directory that it takes by itself."""
    place, root = tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("data")
    output = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(output):
        assert command(*arguments_of(root)) == 0
    return Run(place / "runs" / "smoke", root, output.getvalue(), environment)


def state_of(workdir):
    """Every array of a run's last checkpoint, read back as evaluate reads it."""
    config = ConfigDict(json.loads((workdir / record.CONFIG_FILE).read_text())["config"])
    job = jobs.assemble(config, quiet())
    optimiser = make_optimiser(job.fit.optim, job.fit.train.steps)
    init = states.initialiser(job.task, optimiser, job.fit.tables, job.fit.train.seed)
    mesh = sharding.make_mesh(job.fit.mesh)
    abstract = states.abstract_state(init, mesh, job.fit.mesh.rules)
    step, state, _ = checkpoints.load(workdir, abstract, "newest")
    return step, leaves(state)


def measured(summary):
    """The part of a summary that follows from the parameters."""
    names = ("validation", "test", "constant", "oracle", "share_of_oracle", "modality_weights")
    return {name: summary[name] for name in names}


def table_of(output):
    """The lines of the table of results."""
    names = tuple(f"│ {name.replace('_', ' ')} " for name in METRICS)
    return [line for line in output.splitlines() if line.startswith(names)]


# A finished run ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"features.vectors_on": "host", "features.vector_dtype": "int8"}]
)
def test_blank_vectors_have_the_shapes_of_encoded_ones(changes, run, tmp_path):
    config = ConfigDict(json.loads((run.workdir / record.CONFIG_FILE).read_text())["config"])
    config.update_from_flattened_dict(changes)
    encoded = jobs.assemble(config, quiet())
    files = sorted(run.root.rglob("*"))
    (tmp_path / "blank").mkdir()
    blank = jobs.assemble(config, quiet(), blank=tmp_path / "blank")
    assert sorted(run.root.rglob("*")) == files

    def shapes(job):
        arrays = job.data.context | {name: array for name, (array, _) in job.data.lookups.items()}
        return {name: (array.shape, array.dtype) for name, array in arrays.items()}

    assert shapes(blank) == shapes(encoded)
    assert bool(blank.data.lookups) == bool(changes)
    assert blank.task.config == encoded.task.config
    contents = [
        job.data.context.get("content", job.data.lookups.get("content")) for job in (blank, encoded)
    ]
    zeros, vectors = (np.asarray(x[0] if isinstance(x, tuple) else x) for x in contents)
    assert not zeros.any()
    assert vectors.any()


@pytest.mark.slow
def test_the_summary_has_what_is_documented(run):
    summary = run.summary
    assert set(summary) == {
        *("task", "source", "simulated", "steps", "best_step", "params"),
        *("seconds", "examples_per_second", "data_wait_share", "wall_seconds"),
        "peak_memory_bytes",
        *("validation", "test", "constant", "oracle", "share_of_oracle", "modality_weights"),
        *("flops_per_example", "hash_tables"),
    }
    for part in ("validation", "test"):
        assert set(summary[part]) == {
            name + end for name in METRICS for end in ("", "_low", "_high")
        }
        for name in METRICS:
            low, value, high = (summary[part][name + end] for end in ("_low", "", "_high"))
            # Resampled users give other numbers of bins: the error of calibration only rises.
            assert low <= high if name == "ece" else low <= value <= high
    for name in ("constant", "oracle", "share_of_oracle"):
        assert set(summary[name]) == {"auc", "log_loss"}
    assert tuple(summary["modality_weights"]) == MODALITIES
    assert sum(summary["modality_weights"].values()) == pytest.approx(1, abs=1e-6)
    assert summary["task"] == "bookmarks"
    assert summary["source"] == "openclipart"
    assert summary["simulated"] is True
    assert summary["steps"] == STEPS
    assert summary["best_step"] in (40, 80, 120)
    assert 0 <= summary["data_wait_share"] <= 1
    assert summary["seconds"] < summary["wall_seconds"]
    # The first step compiles and does not count.
    rate = (STEPS - 1) * 128 / summary["seconds"]
    assert summary["examples_per_second"] == pytest.approx(rate)
    _, state = state_of(run.workdir)
    params = [leaf for path, leaf in state.items() if path.startswith("['params']")]
    assert summary["params"] == sum(leaf.size for leaf in params)
    assert {"illust_id", "artist_id", "user_id"} <= summary["hash_tables"].keys()
    for table in summary["hash_tables"].values():
        assert 0 <= table["colliding"] <= table["distinct"]


def test_what_is_printed_is_what_is_written(run):
    for part in ("validation", "test"):
        for name in METRICS:
            assert f"{run.summary[part][name]:.4f}" in run.output
    for name in MODALITIES:
        assert f"{name} {run.summary['modality_weights'][name]:.3f}" in " ".join(run.output.split())
    assert f"{STEPS} steps" in run.output
    assert "simulated bookmarks" in run.output


def test_the_oracle_is_above_the_model_and_the_model_above_chance(run):
    summary = run.summary
    assert summary["test"]["auc_low"] > 0.5
    assert 0.58 < summary["test"]["auc"] < summary["oracle"]["auc"] < 1
    assert summary["oracle"]["log_loss"] < summary["test"]["log_loss"]
    assert summary["oracle"]["log_loss"] < summary["constant"]["log_loss"]
    assert summary["constant"]["auc"] == 0.5
    for name, share in summary["share_of_oracle"].items():
        way = summary["oracle"][name] - summary["constant"][name]
        done = summary["test"][name] - summary["constant"][name]
        assert share == pytest.approx(done / way)
        assert share < 1


def test_a_second_call_trains_nothing(run):
    before = run.summary
    files = sorted((run.workdir / checkpoints.CHECKPOINT_DIR).rglob("*"))
    times = {path: path.stat().st_mtime_ns for path in files if path.is_file()}
    lines = logs.read(run.workdir)
    again = run.train()
    assert measured(again) == measured(before)
    assert again["steps"] == STEPS
    assert again["best_step"] == before["best_step"]
    assert again["seconds"] == pytest.approx(before["seconds"], rel=0.05)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert logs.read(run.workdir) == lines


def test_evaluate_measures_the_same_from_the_checkpoint(run):
    console = quiet()
    before = run.summary
    after = evaluate(run.workdir, console=console)
    assert measured(after) == measured(before)
    assert after["evaluated_step"] == before["best_step"]
    assert run.summary == after  # the rest of the summary stays
    printed = console.file.getvalue()
    assert table_of(printed) == table_of(run.output)
    assert len(table_of(printed)) == len(METRICS)
    assert f"Checkpoint {before['best_step']} of" in printed

    other = evaluate(run.workdir, str(STEPS - EVERY), quiet())
    assert other["evaluated_step"] == STEPS - EVERY
    assert other["test"] != before["test"]

    # Trained on more devices than there are, and on data that have changed since.
    file = run.workdir / "config.json"
    text = file.read_text("utf-8")
    record = json.loads(text)
    assert record["made_from"].keys() == {"data set", "feature bank"}
    record["config"]["mesh"] |= {"data": 3, "model": 16}
    record["made_from"]["data set"] = "another"
    file.write_text(json.dumps(record), "utf-8")
    console = quiet()
    assert measured(evaluate(run.workdir, console=console)) == measured(before)
    said = " ".join(console.file.getvalue().split())
    assert "the data set changed since the run began" in said
    file.write_text(text, "utf-8")

    with pytest.raises(ValueError, match="no checkpoint 7"):
        evaluate(run.workdir, "7", quiet())
    with pytest.raises(ValueError, match="unknown checkpoint 'latest'; allowed: best, newest"):
        evaluate(run.workdir, "latest", quiet())
    with pytest.raises(ValueError, match="expected the folder of a run"):
        evaluate(run.workdir / "nowhere", console=quiet())
    assert not (run.workdir / "nowhere").exists()


def test_the_report_is_made_from_the_folder_alone(run, tmp_path):
    console, summary = quiet(), run.summary
    path = report(run.workdir, users=2, out=tmp_path / "page.html", console=console)
    page = path.read_text("utf-8")
    assert f"Checkpoint {summary['best_step']} of" in " ".join(console.file.getvalue().split())
    assert "openclipart" in page
    assert f"{summary['test']['auc']:.4f}" in page
    assert page.count('<article class="person">') == 2
    assert page.count('<article class="query">') == 6
    assert "The image encoder is untrained" in page
    assert page.count("data:image/webp;base64,") > 20
    assert run.summary == summary


def test_the_predictions_for_the_test_examples_are_kept(run):
    with np.load(run.workdir / PREDICTIONS, allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    assert set(kept) == {"label", "user", "item", "probability", "weights"}
    found = evaluate_predictions(kept["label"], kept["probability"], kept["user"], draws=0)
    for name in METRICS:
        assert found[name] == pytest.approx(run.summary["test"][name])
    means = kept["weights"].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(means, list(run.summary["modality_weights"].values()), rtol=1e-5)


def test_the_weights_are_asked_from_the_folder_alone(run, tmp_path):
    before, console = run.summary, quiet()
    found = evaluate_weights(run.workdir, console=console)
    summary = run.summary
    assert summary == {**before, "weights_probe": json.loads(json.dumps(found))}
    results.write(run.workdir, before)
    assert found["step"] == before["best_step"]
    deletion = found["deletion"]
    assert deletion["auc"] == pytest.approx(before["test"]["auc"])
    for name in (*MODALITIES, "largest", "smallest"):
        assert deletion[f"log_loss_without_{name}"] != deletion["log_loss"], name
    assert set(found["rank_correlation"]) == {
        *("content", "style", "artist and popularity", "mean")
    }
    assert f"{deletion['auc_without_style']:.4f}" in console.file.getvalue()
    assert "The largest is missed more than the smallest by" in console.file.getvalue()


def test_another_config_is_refused(run, capsys):
    arguments = [*arguments_of(run.root), "--workdir", str(run.workdir)]
    before = run.summary
    assert command(*arguments, "--config.seed=1", "--config.model.dropout=0.3") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "another configuration" in said
    assert "seed: 0 in the run, 1 now" in said
    assert "model.dropout: 0.0 in the run, 0.3 now" in said
    assert run.summary == before


def test_a_restart_begins_anew(run, tmp_path):
    workdir = shutil.copytree(run.workdir, tmp_path / "run")
    (workdir / "notes.txt").write_text("mine")
    old = {path.name for path in workdir.iterdir()}
    marked = workdir / checkpoints.CHECKPOINT_DIR / str(STEPS) / "old"
    marked.touch()
    # As long as a part of it: tests/test_loop.py holds the whole to be the same again.
    summary = run.train(workdir, restart=True, **{"train.steps": 40})
    assert summary["steps"] == 40
    assert not marked.exists()
    assert (workdir / "notes.txt").exists()
    assert {path.name for path in workdir.iterdir()} == old
    assert {line["step"] for line in logs.read(workdir)} == {20, 40}


# Broken off -------------------------------------------------------------------------------------


def newest(workdir):
    """Step of the newest committed checkpoint; 0 if there is none."""
    folder = workdir / checkpoints.CHECKPOINT_DIR
    found = folder.iterdir() if folder.is_dir() else ()
    return max((int(path.name) for path in found if path.name.isdecimal()), default=0)


def start(run, workdir, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "umair_jax.train", *arguments_of(run.root), "--workdir", workdir,
         *more],
        cwd=ROOT, env=os.environ | run.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_killed_three_times_ends_as_an_unbroken_one(run, tmp_path):
    for seed in range(3):
        moment = random.Random(seed)
        target = newest(tmp_path) + EVERY * moment.randint(1, 3)
        process = start(run, tmp_path)
        while process.poll() is None and newest(tmp_path) < target:
            time.sleep(0.005)
        time.sleep(moment.uniform(0, 0.1))
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        assert not (tmp_path / results.SUMMARY).exists()
    reached = newest(tmp_path)
    assert reached < STEPS
    last = start(run, tmp_path, "--config.log.progress=True")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert f"going on from checkpoint {reached} of {STEPS}" in " ".join(output.split())
    summary = json.loads((tmp_path / results.SUMMARY).read_text())
    assert measured(summary) == measured(run.summary)
    assert summary["best_step"] == run.summary["best_step"]
    assert logs.read(tmp_path) == logs.read(run.workdir)
    step, state = state_of(tmp_path)
    unbroken_step, unbroken = state_of(run.workdir)
    assert step == unbroken_step == STEPS
    assert state.keys() == unbroken.keys()
    for path, leaf in unbroken.items():
        # Bit for bit; the slots of the table update are scratch space.
        np.testing.assert_array_equal(state[path], leaf, err_msg=path)


# Mistakes ---------------------------------------------------------------------------------------


def test_a_misspelt_option_is_named_with_the_nearest_one(run, tmp_path, capsys):
    arguments = [*arguments_of(run.root), "--workdir", str(tmp_path / "unused")]
    assert command(*arguments, "--config.train.batch_sise=3") == 2
    said = capsys.readouterr().err
    assert said == "error: unknown config key 'batch_sise'; did you mean 'batch_size'?\n"
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.source": "pixiv"}, "pixiv"),
        (
            {"data.source": "folder", "data.path": "/nowhere", "data.limit": 0},
            "/nowhere: got nothing",
        ),
        ({"data.limit": -1}, "limit: got -1; expected 1 or more"),
        ({"model.umcm": "atention"}, "'atention', expected one of attention, senet, mixture"),
        ({"model.cross": "dcn"}, "'dcn', expected one of none, vector, matrix"),
        ({"train.epochs": -1.0, "train.steps": 0}, "nothing to train: steps=0, epochs=-1.0"),
        ({"train.epochs": 2.0}, "give either train.steps or train.epochs, got 120 and 2.0; set"),
        ({"train.steps": "many"}, "--config.train.steps=many: invalid literal for int()"),
        ({"train.batch_size": 0}, "train.batch_size must be 1 or more, got 0"),
        ({"optim.name": "lion"}, "unknown optimiser 'lion'"),
        ({"tables.name": "lion"}, "unknown table optimiser 'lion'"),
        ({"features.split": "random"}, "got the split 'random'"),
        ({"features.zero": ("styles",)}, "zero: got 'styles'"),
        ({"schema.interest_vectors": ("image",)}, "interest_vectors: got 'image'"),
        ({"eval.batch_size": 0}, "expected batch_size of 1 or more"),
        ({"checkpoint.best_metric": "test/auc"}, "checkpoint.best_metric is 'test/auc'"),
        ({"train.batch_size": 130}, "batch_size 130 does not divide over 8 devices"),
        ({"mesh.model": 3}, "does not fit 8 devices"),
    ],
)
def test_a_bad_value_ends_in_one_line(run, changes, said, tmp_path, capsys):
    workdir = tmp_path / "run"
    assert command(*arguments_of(run.root, **changes), "--workdir", str(workdir)) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.endswith("left as it is.")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.umcm": "atention"}, "'atention'"),
        ({"features.split": "random"}, "'random'"),
        ({"train.batch_size": 130}, "130"),
        ({"mesh.model": 3}, "8 devices"),
    ],
)
def test_mistakes_are_found_before_the_long_part(changes, said, tmp_path, capsys):
    root = tmp_path / "data"
    assert command(*arguments_of(root, **changes), "--workdir", str(tmp_path / "run")) == 2
    assert said in capsys.readouterr().err
    assert not root.exists()


def test_arguments_that_are_no_flags_are_refused(run, capsys):
    assert command(*arguments_of(run.root), "configs/base.py") == 2
    assert "got ['configs/base.py']; expected flags only" in capsys.readouterr().err


# Other data -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_learned_from_labels_in_random_order(run, tmp_path, monkeypatch):
    """Were a label among the inputs of its own example, it would be learned just as well.

    Those of the test are in random order too: forty drawings differ by chance, too, and any
    preference of an item, learned from noise, would be far from one half on the true ones.
    """
    dataset = store.load(run.root / "openclipart-first40-seed0")
    log = dataset.interactions
    label = np.random.default_rng(0).permutation(log.label)
    shuffled = dataclasses.replace(dataset, interactions=dataclasses.replace(log, label=label))
    monkeypatch.setattr(store, "load", lambda *_: shuffled)
    summary = run.train(tmp_path)
    assert abs(summary["test"]["auc"] - 0.5) < 0.03
    assert run.summary["test"]["auc"] > 0.58


@pytest.mark.slow
def test_a_folder_of_ones_own(tmp_path, environment):
    rng = np.random.default_rng(0)
    items = ["illust_id,title,artist,tags"]
    items += [f"{k},title {k},artist {k % 3},red|tag {k % 4}" for k in range(1, 21)]
    log = ["user_id,illust_id,timestamp,label"]
    for k in range(200):
        user, item = rng.integers(12), rng.integers(1, 21)
        log.append(f"user{user},{item},{START + 60 * k},{int(user % 4 == item % 4)}")
    source = write(
        tmp_path / "mine",
        {
            "items.csv": "\n".join(items) + "\n",
            "interactions.csv": "\n".join(log) + "\n",
            **{f"images/{k}.png": picture(12 * k, size=(40, 30)) for k in range(1, 21)},
        },
    )
    workdir, root = tmp_path / "run", tmp_path / "data"
    changes = {
        "data.source": "folder",
        "data.path": str(source),
        "data.limit": 0,
        "train.batch_size": 16,
        "train.steps": 20,
        "train.eval_every_steps": 10,
        "eval.batch_size": 64,
    }
    assert command(*arguments_of(root, **changes), "--workdir", str(workdir)) == 0
    summary = json.loads((workdir / results.SUMMARY).read_text())
    assert summary["source"] == "folder"
    assert summary["simulated"] is False
    assert not {"oracle", "share_of_oracle"} & set(summary)
    assert 0 <= summary["test"]["auc"] <= 1
    assert measured_alike(evaluate(workdir, console=quiet()), summary)
    assert [path.name for path in root.iterdir() if path.name != "banks"] == ["folder-mine-seed0"]


def measured_alike(one, two):
    return all(one[name] == two[name] for name in ("validation", "test", "modality_weights"))
