"""The pretext task as pure functions, and the whole job at a small size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from configs import image_tags as config_file
from umair_jax.data.image_tags import ImageTags
from umair_jax.models import weights
from umair_jax.models.augment import AugmentConfig
from umair_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from umair_jax.models.initialise import HostDraws
from umair_jax.models.style import StyleConfig
from umair_jax.models.tagger import TaggerConfig
from umair_jax.settings import build
from umair_jax.tasks.image_tags import ImageTagsTask, ObjectiveConfig
from umair_jax.train import train
from umair_jax.training import state as states
from umair_jax.training.optimisers import OptimConfig, make_optimiser
from umair_jax.training.sharding import (
    DEFAULT_RULES,
    BatchPlacer,
    MeshConfig,
    make_mesh,
    place_context,
)
from umair_jax.training.step import TrainStep
from umair_jax.training.table_optimisers import TableOptimConfig

pytestmark = pytest.mark.usefixtures("compiled_once")

STILL = AugmentConfig(0.0, 0.0, (1.0, 1.0), 0.0, 0.0, 0.0)
TINY = {"base_width": 4, "blocks": (1, 1), "content_stage": 2, "image_size": 32}


def labels(popularity=False):
    tags = np.array([[3, 3], [0, 1], [2, 3], [3, 3], [1, 3], [0, 3]], np.int32)
    return ImageTags(
        names=("a", "b", "c"),
        counts=np.array([2, 2, 1], np.int32),
        tags=tags,
        buckets={"total_view": np.array([-1, 0, 1, -1, 1, 0], np.int32)} if popularity else {},
        bucket_counts={"total_view": 2} if popularity else {},
        rows={"train": np.arange(1, 6, dtype=np.int32)},
        dropped_tags=0,
        untagged=1,
    )


def task(objective, augmentation=STILL, **image):
    config = TaggerConfig(ImageEncoderConfig(**TINY, **image))
    popular = labels(objective.popularity > 0)
    return ImageTagsTask(popular, config, objective, augmentation)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    item = np.arange(1, 6, dtype=np.int32)
    return jax.tree.map(jnp.asarray, {"item": item, "image": image, "weight": np.ones(5, "f4")})


def context_of(made):
    return jax.tree.map(jnp.asarray, dict(made.context()))


def loss_of(made, batch, seed=0):
    state = jax.jit(made.init)(jax.random.key(1))
    run = jax.jit(jax.value_and_grad(made.loss, has_aux=True))
    arguments = {}, state["stats"], context_of(made), batch, jax.random.key(seed)
    return run(state["params"]["net"], *arguments), state


def test_the_tags_of_the_batch_are_the_labels(batch):
    made = task(ObjectiveConfig())
    label = made._multi_hot(context_of(made), batch["item"])
    np.testing.assert_array_equal(label, [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]])


def test_untrained_tags_cost_the_entropy_of_their_frequency(batch):
    """The head starts at the tags' log odds; with a zero kernel that is all it says."""
    made = task(ObjectiveConfig())
    state = jax.jit(made.init)(jax.random.key(1))
    net = state["params"]["net"]
    net["tags"]["kernel"] = jnp.zeros_like(net["tags"]["kernel"])
    found = made.predict(net, {}, state["stats"], context_of(made), batch)
    np.testing.assert_allclose(found["tags"], np.tile([0.4, 0.4, 0.2], (5, 1)), rtol=1e-5)


def test_objectives_add_up(batch):
    goal = ObjectiveConfig(
        tags=0.5, popularity=2.0, content=0.5, style=0.25, style_redundancy=0.125
    )
    ((loss, (_, metrics)), _), _ = loss_of(task(goal), batch)
    means = {name: float(total / count) for name, (total, count) in metrics.items()}
    expected = 0.5 * means["tags_loss"] + 2 * means["popularity_loss"]
    expected += 0.5 * means["content_loss"] + 0.25 * means["style_loss"]
    expected += 0.125 * means["style_redundancy"]
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert {"content_found", "style_found"} < set(metrics)


def test_agreement_of_views_needs_no_labels_and_teaches_all_stages(batch):
    (_, slope), _ = loss_of(task(ObjectiveConfig(tags=0.0, content=1.0)), batch)
    for room in ("conv1", "layer1", "layer2"):
        assert any(np.asarray(x).any() for x in jax.tree.leaves(slope["encoder"]["backbone"][room]))
    assert not np.asarray(slope["tags"]["kernel"]).any()


def test_style_alone_leaves_later_stages_without_a_gradient(batch):
    (_, slope), _ = loss_of(task(ObjectiveConfig(tags=0.0, style=1.0)), batch)
    backbone = slope["encoder"]["backbone"]
    assert np.asarray(backbone["conv1"]["kernel"]).any()
    assert all(not np.asarray(leaf).any() for leaf in jax.tree.leaves(backbone["layer2"]))


def test_a_padded_example_counts_nowhere(batch):
    """Its pixels reach the others through batch statistics only, hence the same picture twice."""
    goal = ObjectiveConfig(tags=1.0, popularity=1.0)
    twice = {
        "item": np.append(batch["item"], 1).astype(np.int32),
        "image": np.concatenate([batch["image"], batch["image"][:1]]),
    }
    results = []
    for item in (1, 2):
        twice["item"][5] = item
        padded = {**twice, "weight": np.array([1, 1, 1, 1, 1, 0], "f4")}
        results.append(float(loss_of(task(goal), padded)[0][0][0]))
    assert results[0] == results[1]


def test_the_encoder_that_comes_out_is_the_one_inside(batch):
    made = task(ObjectiveConfig(), style=StyleConfig(standardise=True, projection=5))
    state = jax.jit(made.init)(jax.random.key(2))
    params = {"net": state["params"]["net"]}
    encoder = made.encoder(params, state["stats"])
    flat = weights.flatten(encoder)
    kernel = state["params"]["net"]["encoder"]["backbone"]["layer2"]["block0"]["conv2"]["kernel"]
    np.testing.assert_array_equal(flat["backbone/layer2/block0/conv2/kernel"], kernel)
    assert encoder(batch["image"] / np.float32(255)).style.shape == (5, 5)


def test_popularity_needs_buckets():
    config = TaggerConfig(ImageEncoderConfig(**TINY))
    with pytest.raises(ValueError, match=r"labels\.popularity names no column"):
        ImageTagsTask(labels(), config, ObjectiveConfig(popularity=1.0), STILL)
    with pytest.raises(ValueError, match="got weights"):
        ObjectiveConfig(tags=0.0)
    with pytest.raises(ValueError, match="style_redundancy -1"):
        ObjectiveConfig(style_redundancy=-1.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("image_tags")
    config = config_file.get_config()
    with config.unlocked():
        config.data.limit, config.data.root = 120, str(folder / "data")
        config.labels.min_count = 3
        config.labels.fractions = (0.7, 0.15, 0.15)
        config.model.image.update(TINY)
        config.export.update({"image_size": 48, "whiten_content": 8, "whiten_style": 4})
        config.train.update({"epochs": 0.0, "steps": 6, "batch_size": 16})
        config.train.update({"checkpoint_every_steps": 3, "log_every_steps": 2})
        config.eval.batch_size = 16
        config.log.update({"sharding_table": False, "tensorboard": False})
    quiet = Console(quiet=True)
    return config, folder / "run", train(config, folder / "run", console=quiet), quiet


def test_the_job_leaves_an_encoder_a_summary_and_a_table_of_tags(run):
    _, workdir, summary, _ = run
    assert summary["task"] == "image_tags"
    assert summary["drawings"] == {"train": 84, "valid": 18, "test": 18}
    for part in ("validation", "test"):
        assert {"map", "micro_f1", "macro_f1", "best_micro_f1"} < set(summary[part])
        assert 0 < summary["chance_map"][part] < 1
    stored = json.loads((workdir / "summary.json").read_text())
    assert stored["test"] == summary["test"]
    lines = (workdir / "tags.jsonl").read_text().splitlines()
    assert len(lines) == summary["tags"]
    counts = [json.loads(line)["train"] for line in lines]
    assert counts == sorted(counts, reverse=True)
    recorded = weights.read_settings(workdir / "image_encoder.safetensors")
    assert recorded["image_size"] == 48
    assert recorded["style"]["kernel"] == "gaussian"
    encoder = ImageEncoder(build(ImageEncoderConfig, recorded), rngs=HostDraws(0))
    before = weights.flatten(encoder)
    weights.load(encoder, workdir / "image_encoder.safetensors")
    after = weights.flatten(encoder)
    moved = [name for name in before if (before[name] != after[name]).any()]
    # All but the draws of the features, and where scales of zero kept gradients away.
    assert len(moved) > 0.8 * len(before)
    assert {"style_head/variance0", "whiten_style/kernel", "backbone/conv1/kernel"} <= set(moved)
    assert "style_head/frequencies0" not in moved


def test_a_head_that_is_kept_keeps_what_it_learned(run):
    config, workdir, _, quiet = run
    learning = ConfigDict(config.to_dict())
    head = {**learning.model.image.style.to_dict(), "projection": 3}
    learning.model.image.style = head
    learning.export.style = head
    learning.export.whiten_style = 0
    train(learning, workdir.with_name("kept"), console=quiet)
    found = weights.read(workdir.with_name("kept") / "image_encoder.safetensors")
    untrained = ImageEncoder(
        build(ImageEncoderConfig, learning.model.image.to_dict()), rngs=HostDraws(0)
    )
    kernel = weights.flatten(untrained)["style_head/kernel"]
    assert found["style_head/kernel"].shape == kernel.shape
    assert np.abs(found["style_head/mean"]).max() > 0.01
    learning.model.image.style.projection = 2
    with pytest.raises(ValueError, match=r"export style: got projection 3.*expected 0"):
        train(learning, workdir.with_name("other"), console=quiet)


def test_a_finished_run_gives_the_same_again(run):
    config, workdir, summary, quiet = run
    written = (workdir / "image_encoder.safetensors").read_bytes()
    again = train(config, workdir, console=quiet)
    assert again["test"] == summary["test"]
    assert (workdir / "image_encoder.safetensors").read_bytes() == written


def updated(devices, batch):
    """State and metrics after one update with everything on, draws included."""
    goal = ObjectiveConfig(tags=0.5, content=1.0, style=1.0)
    made = task(goal, AugmentConfig())
    mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
    optimiser = make_optimiser(OptimConfig("sgd", 0.1, ema_decay=0.9), 10)
    init = states.initialiser(made, optimiser, TableOptimConfig(), seed=0)
    abstract = states.abstract_state(init, mesh, DEFAULT_RULES)
    step = TrainStep(made, optimiser, TableOptimConfig(), mesh, 0, abstract)
    state, context = states.create(init, abstract), place_context(made.context(), mesh)
    state, packed = step(state, context, BatchPlacer(mesh, 16)(batch))
    return jax.device_get(state), step.unpack(packed)


def test_statistics_and_agreement_are_those_of_the_global_batch():
    rng = np.random.default_rng(1)
    batch = {
        "item": rng.integers(1, 6, 16).astype(np.int32),
        "image": rng.integers(0, 256, (16, 32, 32, 3), np.uint8),
        "weight": np.ones(16, np.float32),
    }
    one, metrics = updated(1, batch)
    eight, metrics_of_eight = updated(8, batch)
    for name, values in metrics.items():
        assert metrics_of_eight[name] == pytest.approx(values, rel=1e-3), name
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(eight), strict=True
    ):
        np.testing.assert_allclose(other, leaf, rtol=1e-3, atol=1e-4, err_msg=str(path))
