"""Users and items after the log, against the obvious way to find what is known of them."""

import dataclasses

import jax
import numpy as np
import pytest
import small_world

from umair_jax import settings
from umair_jax.data import snapshot
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.splits import KINDS
from umair_jax.models.rankers import RANKERS
from umair_jax.tasks import bookmarks
from umair_jax.tasks.bookmarks import BookmarksTask


def on_device(arrays):
    return {name: jax.numpy.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_users_and_items_are_as_after_the_log(kind):
    site = small_world.dataset(rows=160)
    options = {"split": kind, "fractions": small_world.FRACTIONS}
    built = small_world.build(site, **options)
    latest = snapshot.latest(site, small_world.bank(), built, RankingConfig(**options))
    task = BookmarksTask(
        latest, settings.build(RANKERS["deepfm"], bookmarks.shape_of(built.schema))
    )
    rows = np.arange(1, small_world.USERS + 1)
    asked = on_device({name: column[rows] for name, column in latest.columns.items()})
    found = task.table_rows(on_device(task.context()), asked)
    # The obvious way: as many interactions at the end of the log, each on its own.
    log = site.interactions
    moment = int(log.timestamp.max()) + 1
    asked = log.with_questions(rows.astype(np.int32), rows.astype(np.int32), moment)
    longer = dataclasses.replace(site, interactions=asked)
    part = np.append(built.split, np.full(len(rows), 2, np.int8))
    for k, row in enumerate(rows):
        want = small_world.table_rows(built.schema, longer, part, kind, len(log) + k)
        np.testing.assert_array_equal(found["embedding"][k], want[0], err_msg=str(row))
        np.testing.assert_array_equal(found["wide"][k], want[1])
        marked = small_world.bookmarks_before(longer, part, kind, len(log) + k, 8)
        there = [i for i in marked if latest.context["present"][i, 0]]
        mean = latest.context["content"][there].mean(axis=0) if there else 0.0
        np.testing.assert_allclose(
            latest.context["short_term_content"][row], np.broadcast_to(mean, 6), atol=1e-6
        )
