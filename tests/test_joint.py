"""End to end: the ranker's loss reaches the encoders, from the task to the whole job."""

import copy
import dataclasses
import functools
import io
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_world
from ml_collections import ConfigDict
from rich.console import Console

from configs import base as base_file
from configs import joint as config_file
from umair_jax import jobs
from umair_jax.data import ranking_vectors, snapshot
from umair_jax.data.item_batches import DistinctItemSource
from umair_jax.data.ranking_config import VECTORS, RankingConfig
from umair_jax.jobs import bookmarks as bookmarks_job
from umair_jax.load_run import load
from umair_jax.recommending import person
from umair_jax.recommending.scorer import Scorer
from umair_jax.tasks.bookmarks import batch_source
from umair_jax.train import train
from umair_jax.training import state as states
from umair_jax.training.evaluation import Predictor
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import (
    DEFAULT_RULES,
    BatchPlacer,
    MeshConfig,
    make_mesh,
    place_context,
)
from umair_jax.training.step import TrainStep

TINY = {
    "data.limit": 24,
    "extract.image.image_size": 32,
    "extract.image.base_width": 4,
    "extract.image.blocks": (1, 1),
    "extract.image.content_stage": 2,
    "extract.image.whiten_content": 8,
    "extract.image.whiten_style": 4,
    "extract.image_batch": 8,
    "extract.calibration_images": 24,
    "extract.image_weights": "",
    "extract.text_weights": "",
    "extract.text.width": 8,
    "extract.text.heads": 2,
    "extract.text.ffn": 8,
    "extract.text.output": 8,
    "extract.text.dropout": 0.0,
    "schema.sizes.illust_id": 200,
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
    "train.batch_size": 16,
    "train.steps": 6,
    "train.log_every_steps": 2,
    "train.eval_every_steps": 3,
    "train.checkpoint_every_steps": 2,
    "optim.ema_decay": 0.9,
    "optim.rates": (),
    "eval.batch_size": 512,
    "eval.bootstrap_draws": 0,
    "log.progress": False,
    "log.sharding_table": False,
    "log.tensorboard": False,
}


def quiet():
    return Console(file=io.StringIO(), width=80)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("joint")


def config_of(root, **changes):
    config = config_file.get_config()
    config.update_from_flattened_dict(TINY | {"data.root": str(root / "data")} | changes)
    return config


@pytest.fixture(scope="module")
def job(root):
    return jobs.assemble(config_of(root), quiet())


@pytest.fixture(scope="module", autouse=True)
def compile_fast(compiled_once):
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


class Trainer:
    """A job's task on some devices, as the loop runs it."""

    def __init__(self, job, devices=1, optim=None):
        self.job, self.task = job, job.task
        self.mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        self.optimiser = make_optimiser(optim or job.fit.optim, 6)
        init = states.initialiser(self.task, self.optimiser, job.fit.tables, 0)
        self.abstract = states.abstract_state(init, self.mesh, DEFAULT_RULES)
        self.state = states.create(init, self.abstract)
        self.context = place_context(self.task.context(), self.mesh)
        self.step = TrainStep(
            self.task, self.optimiser, job.fit.tables, self.mesh, 0, self.abstract
        )
        self.predictor = Predictor(self.task, self.mesh)

    def train(self, steps=3, source=None):
        """Loss of every step."""
        source = source or self.job.source
        place, losses = BatchPlacer(self.mesh, source.batch_size), []
        for k in range(steps):
            self.state, packed = self.step(self.state, self.context, place(source.batch(k)))
            losses.append(self.step.unpack(packed)["loss"][0])
        return losses

    def refreshed(self):
        params, stats = states.judged(self.state)
        return self.task.refreshed(params, stats, self.context, self.mesh)


def assert_start_is_the_bank(job):
    found = Trainer(job).refreshed()
    for name in ("content", "style", "text"):
        stored = job.data.context[name]
        assert np.abs(stored).max() > 0.1
        np.testing.assert_allclose(found[name], stored, rtol=1e-4, atol=1e-4)


def test_the_vectors_of_the_start_are_those_of_the_bank(job):
    assert_start_is_the_bank(job)


@pytest.mark.parametrize(
    "options", [{"standardise": True}, {"log_style": True, "standardise": True, "zero": ("text",)}]
)
def test_vectors_are_scaled_as_the_main_job_scales_them(job, options):
    bank = small_world.bank()
    expected = small_world.build(vectors=bank, **options)
    task = copy.copy(job.task)
    task._features = RankingConfig(fractions=small_world.FRACTIONS, **options)
    task._scales = ranking_vectors.scales(bank, task._features)
    for name, there in zip(VECTORS, expected.context["present"].T, strict=True):
        found = task._scaled(name, jnp.asarray(getattr(bank, name)), jnp.asarray(there))
        np.testing.assert_allclose(found, expected.context[name], rtol=1e-4, atol=1e-5)


def gradients_of(job):
    made = job.task.init(jax.random.key(0))
    context = jax.tree.map(jnp.asarray, dict(job.task.context()))
    batch = jax.tree.map(jnp.asarray, job.source.batch(0))
    rows = {
        name: made["params"]["tables"][name][r]
        for name, r in job.task.table_rows(context, batch).items()
    }

    def loss(net):
        return job.task.loss(net, rows, made["stats"], context, batch, jax.random.key(1))

    found, (stats, _) = jax.jit(jax.grad(loss, has_aux=True))(made["params"]["net"])
    return found, stats, made


def test_the_loss_reaches_the_ranker_and_both_encoders_from_end_to_end(job):
    found, stats, made = gradients_of(job)
    assert set(found) == {"ranker", "image", "text"}
    for part in (
        found["ranker"]["user_tower"],
        found["image"]["backbone"]["conv1"],
        found["image"]["backbone"]["layer2"],
        found["text"]["transformer"],
        found["text"]["dense"],
    ):
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(part)]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert max(np.abs(leaf).max() for leaf in leaves) > 0
    for new, old in zip(
        jax.tree.leaves(stats["image"]), jax.tree.leaves(made["stats"]["image"]), strict=True
    ):
        np.testing.assert_array_equal(new, old)


def test_statistics_learn_where_they_are_asked_to(root):
    asked = jobs.assemble(config_of(root, **{"joint.batch_norm": "batch"}), quiet())
    _, stats, made = gradients_of(asked)
    new, old = (s["image"]["backbone"]["bn1"]["mean"] for s in (stats, made["stats"]))
    assert np.abs(np.asarray(new) - np.asarray(old)).max() > 0
    np.testing.assert_array_equal(
        stats["image"]["whiten_content"]["kernel"],
        made["stats"]["image"]["whiten_content"]["kernel"],
    )


def test_frozen_encoders_stay_as_they_are_and_the_ranker_trains_as_in_the_main_job(root):
    frozen = jobs.assemble(
        config_of(root, **{"optim.rates": (("^image/", 0.0), ("^text/", 0.0))}), quiet()
    )
    joint = Trainer(frozen)
    before = jax.device_get(joint.state["params"]["net"])
    losses = joint.train()
    for net in (joint.state["params"]["net"], joint.state["ema"]["net"]):
        for tower in ("image", "text"):
            for new, old in zip(
                jax.tree.leaves(net[tower]), jax.tree.leaves(before[tower]), strict=True
            ):
                np.testing.assert_array_equal(new, old)
    plain = bookmarks_job.assemble(plain_config(frozen.config), quiet())
    # Without the clipped norm of the gradients, which is that of the ranker in both.
    assert losses == pytest.approx(Trainer(plain).train(), rel=1e-4)


def plain_config(config):
    """The main job on the same data."""
    plain = ConfigDict({k: v for k, v in config.to_dict().items() if k not in ("joint", "export")})
    plain.task = "bookmarks"
    plain.optim.rates = ()
    plain.optim.decay_mask = base_file.get_config().optim.decay_mask
    return plain


@pytest.mark.slow
def test_the_same_on_any_number_of_devices(job):
    source = functools.partial(
        DistinctItemSource,
        job.data.columns,
        job.task.encoder_inputs,
        16,
        index=job.data.rows("train"),
    )
    plain, losses, vectors = OptimConfig("sgd", 0.05), {}, {}  # less to compile than with Adam
    for devices in (1, 2, 8):
        made = Trainer(job, devices, plain)
        losses[devices] = made.train(3, source(multiple=devices))
        if devices in (1, 8):
            vectors[devices] = made.refreshed()["content"]
    assert losses[1][0] != losses[1][1]
    for devices in (2, 8):
        assert losses[devices] == pytest.approx(losses[1], rel=1e-4)
    np.testing.assert_allclose(vectors[8], vectors[1], rtol=1e-3, atol=1e-3)


def test_predictions_follow_the_weights_and_no_other_example(job):
    made = Trainer(job)
    rows = job.data.rows("valid")[:40]

    def predicted(index, batch_size=8):
        source = batch_source(job.data, "valid", batch_size)
        source = type(source)(source.columns, batch_size, shuffle=False, index=index)
        return made.predictor(made.state, made.context, source)["probability"]

    before = predicted(rows)
    np.testing.assert_array_equal(before, predicted(rows))
    # Whatever the other examples of a batch are, and wherever in it an example is.
    np.testing.assert_array_equal(before, predicted(rows[::-1])[::-1])
    made.train(1)
    after = predicted(rows)
    assert np.abs(after - before).max() > 0
    fresh = Predictor(job.task, made.mesh)
    source = batch_source(job.data, "valid", 8)
    source = type(source)(source.columns, 8, shuffle=False, index=rows)
    again = fresh(made.state, made.context, source)["probability"]
    np.testing.assert_array_equal(after, again)
    # What stands in for users keeps doing so.
    others = made.context | {"long_term_text": 1 + made.context["long_term_text"]}
    assert (fresh(made.state, others, source)["probability"] != after).any()
    assert fresh(made.state, made.context, source, lambda: True) is None


@pytest.fixture(scope="module")
def run(root, compiled_once):
    summary = train(config_of(root), root / "run", console=quiet())
    return root / "run", summary


def test_an_interrupted_run_ends_as_an_unbroken_one(root, run, monkeypatch):
    workdir, summary = run
    real = DistinctItemSource.batch

    def broken(self, k, rows=None):
        if k == 5:
            raise RuntimeError("the power is gone")
        return real(self, k, rows)

    monkeypatch.setattr(DistinctItemSource, "batch", broken)
    config = config_of(root)
    with pytest.raises(RuntimeError, match="power"):
        train(config, root / "broken", console=quiet())
    monkeypatch.setattr(DistinctItemSource, "batch", real)
    again = train(config, root / "broken", console=quiet())
    assert again["test"] == summary["test"]
    for name in ("image_encoder.safetensors", "text_encoder.safetensors"):
        assert (root / "broken" / name).read_bytes() == (workdir / name).read_bytes()


def test_the_main_job_runs_with_the_encoders_that_come_out(root, run):
    workdir, _ = run
    left = load(workdir, "best", quiet())
    params, stats = states.judged(left.state)
    found = left.job.task.refreshed(params, stats, left.context, left.predictor.mesh)
    for name, vectors in found.items():
        np.testing.assert_array_equal(left.context[name], vectors)
    plain = plain_config(config_of(root))
    plain.extract.image_weights = str(workdir / "image_encoder.safetensors")
    plain.extract.text_weights = str(workdir)
    data = bookmarks_job.load(plain, quiet()).data
    for name in ("content", "style", "text"):
        np.testing.assert_allclose(
            data.context[name], np.asarray(found[name])[: len(data.context[name])], atol=1e-4
        )
        moved = np.abs(data.context[name] - left.job.data.context[name]).max()
        assert moved > 1e-3, name


def test_recommendations_are_made_with_the_vectors_of_the_trained_encoders(run):
    left = load(run[0], "best", quiet())
    job, moment = left.bookmarks, snapshot.moment_after(left.job.dataset)
    someone = person.of_rows(np.array([3, 5], np.int32), moment)
    drawings = np.arange(1, 21)
    scorer = Scorer(left, moment)
    in_two = scorer([someone], [drawings])[0].probability
    scorer._sides = None  # pair by pair, as the predictions of a run are made
    np.testing.assert_allclose(in_two, scorer([someone], [drawings])[0].probability, rtol=1e-4)
    start = dataclasses.replace(left, context=place_context(job.data.context, left.predictor.mesh))
    stale = Scorer(start, moment)([someone], [drawings])[0].probability
    assert np.abs(stale - in_two).max() > 1e-5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.micro_batches": 2}, r"config\.train\.micro_batches: got 2, expected 1"),
        ({"features.vector_dtype": "bfloat16"}, "vector_dtype: got 'bfloat16', expected 'float32'"),
        ({"joint.batch_norm": "none"}, "batch_norm: got 'none', expected one of frozen, batch"),
        ({"joint.encode_batch": 0}, "encode_batch: got 0"),
        ({"export.dtype": "int8"}, "export dtype: got 'int8'"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(root, changes, said):
    with pytest.raises(ValueError, match=said):
        jobs.assemble(config_of(root, **changes), quiet())


def test_a_ranker_that_reads_bookmarked_items_is_refused(root):
    config = config_of(root, **{"features.history": 4})
    with config.unlocked():
        config.model = ConfigDict({"name": "item_knn"})
    with pytest.raises(ValueError, match="reads bookmarked items one by one"):
        jobs.assemble(config, quiet())


def test_pictures_of_another_size_are_refused(root, job):
    config = config_of(root)
    bank = bookmarks_job.load(plain_config(config), quiet()).bank_dir
    kept = bank / "kept.npy"
    shutil.move(bank / "pixels.npy", kept)
    np.save(bank / "pixels.npy", np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"got uint8 \(3, 8, 8, 3\), expected uint8 \(25, 32"):
        jobs.assemble(config, quiet())
    shutil.move(kept, bank / "pixels.npy")
