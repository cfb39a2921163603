import dataclasses

import numpy as np
import pytest
import small_world as world

from umair_jax.data.fold_in import Bookmarks, FoldIn
from umair_jax.data.ranking_config import RankingConfig
from umair_jax.data.stored_vectors import restored


def at(log, row):
    """The user's bookmarks of the whole log, and the moment of an interaction."""
    mine = np.flatnonzero((log.user == log.user[row]) & (log.label == 1))
    return Bookmarks(log.item[mine], log.timestamp[mine]), int(log.timestamp[row])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"long_max": 3, "short_max": 1},
        {"long_days": 20 / 86_400, "short_days": 5 / 86_400},
        {"history": 4},
        {"vector_dtype": "bfloat16"},
    ],
    ids=lambda options: ",".join(options) or "default",
)
def test_states_are_those_that_the_log_had(seed, options):
    options = {"fractions": world.FRACTIONS, "standardise": False} | options
    dataset, config = world.dataset(seed), RankingConfig(**options)
    data = world.build(dataset, world.bank(seed), **options)
    fold_in, log = FoldIn(dataset, data, config), dataset.interactions
    for row in range(0, len(log), 3):
        person, moment = at(log, row)
        found = fold_in.states([person], moment)
        state = data.columns["state"][row]
        for name, array in found.items():
            expected = np.asarray(data.context[name][state], np.float32)
            # Vectors that were rounded before they were averaged.
            atol = 0.02 if "vector_dtype" in options else 1e-6
            np.testing.assert_allclose(
                np.asarray(array[0], np.float32), expected, rtol=atol, atol=atol, err_msg=name
            )


def test_people_do_not_disturb_each_other():
    dataset, config = world.dataset(), RankingConfig(fractions=world.FRACTIONS)
    data = world.build(dataset)
    fold_in, log = FoldIn(dataset, data, config), dataset.interactions
    people = [at(log, row)[0] for row in (40, 3, 25)]
    people.insert(1, Bookmarks(np.zeros(0, np.int32), np.zeros(0, np.int64)))
    together = fold_in.states(people, 30)
    for k, person in enumerate(people):
        for name, array in fold_in.states([person], 30).items():
            np.testing.assert_allclose(together[name][k], array[0], atol=1e-6, err_msg=name)
    assert not together["long_term_text"][1].any()


def test_int8_states_come_with_their_scale():
    options = {"fractions": world.FRACTIONS, "vector_dtype": "int8"}
    data = world.build(**options)
    dataset = world.dataset()
    person, moment = at(dataset.interactions, 50)
    found = FoldIn(dataset, data, RankingConfig(**options)).states([person], moment)
    exact = FoldIn(
        dataset, world.build(fractions=world.FRACTIONS), RankingConfig(fractions=world.FRACTIONS)
    ).states([person], moment)
    first = np.zeros(1, np.int32)
    for name in ("long_term_text", "short_term_style"):
        size = np.abs(exact[name]).max()
        got = restored(found, name, first)
        np.testing.assert_allclose(got, exact[name], atol=size * 0.02, err_msg=name)


def test_means_of_vectors_that_the_items_lack_are_an_error():
    data = world.build()
    context = {name: array for name, array in data.context.items() if name != "style"}
    with pytest.raises(ValueError, match=r"long_term_style: got no vectors 'style' of the items"):
        FoldIn(world.dataset(), dataclasses.replace(data, context=context), RankingConfig())
