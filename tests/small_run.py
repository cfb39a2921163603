"""A run over the made-up site, as it is after its last step: nothing is trained."""

import dataclasses

import small_world
from folders import picture
from ml_collections import ConfigDict

from umair_jax import load_run, settings
from umair_jax.jobs.bookmarks import BookmarksJob, EvalConfig
from umair_jax.models.ranker import RankerConfig
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import sharding
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


class Drawings:
    """Pictures of the made-up site; some have none."""

    def read(self, row):
        return picture(40 * row) if row % 3 else b""


def loaded(**features):
    """The run, as `load_run.load` gives it."""
    world = dataclasses.replace(small_world.dataset(rows=256, seconds=150), images=Drawings())
    features = {"split": "temporal", "fractions": small_world.FRACTIONS} | features
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
    return load_run.LoadedRun(job, STEP, state, context, Predictor(task, mesh))
