"""Somebody new is known by his bookmarks alone, and better with each of them."""

import io

import numpy as np
import pytest
import small_run
import small_world
from rich.console import Console

from umair_jax import evaluate_newcomers, load_run, settings
from umair_jax.data import ranking
from umair_jax.data.dataset import Dataset, Interactions, Items, Users
from umair_jax.data.feature_bank import FeatureBank
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.splits import TEST
from umair_jax.jobs.bookmarks import BookmarksJob, EvalConfig
from umair_jax.models.ranker import RankerConfig
from umair_jax.probes import newcomers
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import sharding
from umair_jax.training.evaluation import Predictor
from umair_jax.training.loop import fit
from umair_jax.training.optimisers import OptimConfig
from umair_jax.training.settings import FitConfig, TrainConfig

KINDS, ITEMS, USERS, EACH = 4, 96, 80, 60


def quiet():
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize("kind", ["temporal", "cold_user"])
@pytest.mark.parametrize("most", [0, 3])
def test_who_is_judged_and_by_what(kind, most):
    world = small_world.dataset(rows=200)
    data, log = small_world.build(world, split=kind), world.interactions
    found = newcomers.find(world, data, most)
    expected = {}
    for user in range(1, small_world.USERS + 1):
        marked = [k for k in range(len(log)) if log.user[k] == user and log.label[k] == 1][:most]
        begins = log.timestamp[marked[-1]] if marked else -1
        rows = [
            k for k in range(len(log))
            if log.user[k] == user and data.split[k] == TEST and log.timestamp[k] > begins
        ]  # fmt: skip
        if len(marked) == most and rows:
            expected[user] = (marked, rows)
    assert len(found.first) == len(expected)
    assert found.rows.tolist() == sorted(k for _, rows in expected.values() for k in rows)
    for person, (user, (marked, rows)) in enumerate(expected.items()):
        assert found.rows[found.place == person].tolist() == rows
        assert (log.user[rows] == user).all()
        for count in range(most + 1):
            known = found.after(count)[person]
            assert known.item.tolist() == log.item[marked[most - count :]].tolist()
            assert (known.timestamp < log.timestamp[rows[0]]).all()


def test_nobody_with_enough_bookmarks_is_an_error():
    world = small_world.dataset()
    with pytest.raises(ValueError, match="got nobody in the test part with 99 bookmarks"):
        newcomers.find(world, small_world.build(world), 99)
    with pytest.raises(ValueError, match=r"counts: got \(2, 1\); expected ascending"):
        newcomers.measure(world, small_world.build(world), lambda *_: None, (2, 1), 0)


def tastes():
    """Everybody likes one of four kinds of drawings, which their content tells."""
    rng = np.random.default_rng(0)
    item_kind = np.arange(ITEMS + 1) % KINDS
    user_kind = np.arange(USERS + 1) % KINDS
    user = np.repeat(np.arange(1, USERS + 1), EACH).astype(np.int32)
    item = rng.integers(1, ITEMS + 1, len(user)).astype(np.int32)
    likes = np.where(item_kind[item] == user_kind[user], 0.8, 0.1)
    log = Interactions(
        user=user,
        item=item,
        timestamp=rng.permutation(len(user)).astype(np.int64),
        label=(rng.random(len(user)) < likes).astype(np.int8),
    ).ordered()
    unknown, empty = np.full(ITEMS + 1, -1, np.int64), ("",) * (ITEMS + 1)
    numbers = ("width", "height", "total_view", "total_bookmarks", "sanity_level")
    items = Items(
        illust_id=("", *(f"i{k}" for k in range(ITEMS))),
        **dict.fromkeys(("title", "artist", "description", "category"), empty),
        tags=((),) * (ITEMS + 1),
        **dict.fromkeys((*numbers, "restrict", "x_restrict", "published"), unknown),
    )
    users = Users(("", *(f"u{k}" for k in range(USERS))), ("",) * (USERS + 1))
    content = np.eye(KINDS, 6)[item_kind] + 0.3 * rng.normal(size=(ITEMS + 1, 6))
    there = np.arange(ITEMS + 1) > 0
    vectors = [content, np.zeros((ITEMS + 1, 4)), np.zeros((ITEMS + 1, 5))]
    bank = FeatureBank(
        *(np.where(there[:, None], x, 0).astype(np.float32) for x in vectors),
        there,
        ~there,
        manifest={"trained": True},
    )
    return Dataset("tastes", True, items, users, log, "tastes"), bank


def test_the_more_bookmarks_are_folded_in_the_better(tmp_path, monkeypatch):
    world, bank = tastes()
    features = {"split": "cold_user", "fractions": (0.6, 0.1, 0.3)}
    config = RankingConfig(**features)
    schema = small_world.SCHEMA.schema()
    data = ranking.build(world, bank, schema, config)
    given = small_run.TINY | {"dropout": 0.0, "umcm": "senet"} | bookmarks.shape_of(data.schema)
    task = BookmarksTask(data, settings.build(RankerConfig, given))
    options = FitConfig(
        TrainConfig(batch_size=256, steps=150, eval_every_steps=150, checkpoint_every_steps=150),
        OptimConfig(learning_rate=0.02),
    )
    source = bookmarks.batch_source(data, "train", 256)
    result = fit(task, source, {}, options, tmp_path, record={})
    mesh = sharding.make_mesh(options.mesh)
    context = sharding.place_context(task.context(), mesh)
    job = BookmarksJob(
        settings.ConfigDict({"features": features}), world, data, task, options, EvalConfig(512, 0)
    )
    run = load_run.LoadedRun(job, 150, result.state, context, Predictor(task, mesh))
    monkeypatch.setattr(load_run, "load", lambda *_: run)
    found = evaluate_newcomers.evaluate_newcomers(tmp_path, console=quiet(), counts=(0, 1, 3, 8))[
        "after"
    ]
    auc = [found[str(count)]["auc"] for count in (0, 1, 3, 8)]
    assert auc[0] < 0.6
    assert auc[0] + 0.05 < auc[1] < auc[2] < auc[3]
    assert auc[3] > 0.8
