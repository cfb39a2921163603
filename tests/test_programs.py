"""Every ranker as a program of plain arrays, for batches of any size."""

import functools

import jax
import numpy as np
import pytest
import small_world
from jax import export

from umair_jax import settings
from umair_jax.models.rankers import RANKERS
from umair_jax.serving import programs, stablehlo
from umair_jax.serving.programs import Weights
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask
from umair_jax.training import stored_rows


@functools.cache
def data():
    return small_world.build(small_world.dataset(rows=256, seconds=150), history=3)


def task_of(name):
    shape = bookmarks.shape_of(data().schema)
    return BookmarksTask(data(), settings.build(RANKERS[name], shape))


def on_device(arrays):
    return {name: jax.numpy.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", ["deepfm", "item_knn"])
def test_baselines_are_exported(name, compiled_once):
    task = task_of(name)
    made = jax.jit(task.init)(jax.random.key(0))
    weights = Weights.of(made["params"], made["stats"])
    made_of = programs.make(task.config, weights)
    assert list(made_of) == ["scorer"]
    context, batch = on_device(task.context()), on_device(data().columns)
    batch = {name: column[:7] for name, column in batch.items()}
    user, item = jax.jit(functools.partial(programs.read, task))(context, batch)
    found = stablehlo.exported(made_of["scorer"], weights.arrays, user=user, item=item)
    own = {key: weights.arrays[key] for key in found.weights}
    got = export.deserialize(bytearray(found.blob)).call(own, user, item)

    @jax.jit
    def predicted(params, stats, context, batch):
        rows = {k: params["tables"][k][r] for k, r in task.table_rows(context, batch).items()}
        return task.predict(params["net"], rows, stats, context, batch)

    want = predicted(made["params"], made["stats"], context, batch)
    assert set(got) == set(want) == set(found.outputs)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", stored_rows.DTYPES)
def test_exported_tables_are_float32_whatever_they_were_kept_in(dtype):
    table = jax.random.normal(jax.random.key(0), (5, 3))
    params = {"net": {}, "tables": {"embedding": stored_rows.stored(table, dtype)}}
    found = Weights.of(params, {}).arrays["tables/embedding"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, table, atol=0.02)
    assert not np.array_equal(found, table) or dtype == "float32"


@pytest.mark.parametrize("name", RANKERS)
def test_no_ranker_needs_to_know_the_size_of_its_batch(name):
    task = task_of(name)
    made = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(task.init, jax.random.key(0))
    )
    weights = Weights.of(made["params"], made["stats"])
    columns = {k: column[:2] for k, column in data().columns.items()}
    (batch,) = export.symbolic_shape("B")
    sides = [
        {k: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for k, x in side.items()}
        for side in jax.eval_shape(
            functools.partial(programs.read, task), on_device(task.context()), on_device(columns)
        )
    ]
    scorer = programs.make(task.config, weights)["scorer"]
    found = jax.eval_shape(scorer, weights.arrays, *sides)
    assert found["probability"].shape == (batch,)
    assert found["weights"].shape == (batch, len(task.modality_names))
