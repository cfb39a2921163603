import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models.inputs import RankerInputs
from umair_jax.models.two_tower import TwoTowerConfig
from umair_jax.training.optimisers import OptimConfig

B = 6
SHAPE = {
    "user_fields": 2,
    "item_fields": 3,
    "embedding_width": 2,
    "user_dense": (("long_term_text", 4),),
    "modalities": (("content", 5), ("text", 4)),
}
TINY = {"tower_widths": (7,), "modality_width": 3, "width": 4}


def towers(**options):
    config = TwoTowerConfig(**(SHAPE | TINY | options))
    # Jitted: one program, not one for every shape that is drawn.
    state = jax.jit(lambda: nnx.state(config.create(nnx.Rngs(0))))()
    return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: config.create(nnx.Rngs(0)))), state)


@functools.partial(jax.jit, static_argnames="train")
def both(model, inputs, train=False, weight=None):
    return nnx.merge(*model).both(inputs, train=train, weight=weight)


def inputs(seed=0, present=True):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(B, *shape)), jnp.float32)

    return RankerInputs(
        user_embeddings=normal(2, 2),
        item_embeddings=normal(3, 2),
        wide=None,
        user_dense={"long_term_text": normal(4)},
        modalities={"content": normal(5), "text": normal(4)},
        present=jnp.asarray(rng.random((B, 2)) < 0.6) if present else None,
    )


@pytest.mark.parametrize("normalise", [True, False])
def test_each_tower_reads_its_own_side_alone(normalise):
    model, one, other = towers(normalise=normalise), inputs(0), inputs(1)
    mixed = one._replace(user_embeddings=other.user_embeddings, user_dense=other.user_dense)
    of_one, of_other, of_mixed = (both(nnx.split(model), x) for x in (one, other, mixed))
    np.testing.assert_array_equal(of_mixed[0], of_other[0])
    np.testing.assert_array_equal(of_mixed[1], of_one[1])
    assert np.abs(of_one[0] - of_other[0]).max() > 0.01
    lengths = np.linalg.norm(np.stack(of_one), axis=-1)
    assert np.allclose(lengths, 1, atol=1e-5) == normalise
    assert lengths.shape == (2, B)


def test_what_a_missing_modality_holds_does_not_matter():
    model, given = towers(), inputs()
    there = given.present[:, 0, None]
    broken = given._replace(
        modalities=given.modalities
        | {"content": jnp.where(there, given.modalities["content"], jnp.nan)}
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(params, inputs):
        found = nnx.merge(graph, params, rest).items(inputs)
        return found[:, 0].sum(), found

    results = [total(params, x) for x in (given, broken)]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(one, other)
    # Missing counts as zeros behind the projection, its bias included.
    biased = towers()
    biased.projections["content"].bias[...] = jnp.ones(3)
    absent = np.flatnonzero(~np.asarray(there[:, 0]))
    (_, found), _ = total(nnx.split(biased, nnx.Param, ...)[1], given)
    np.testing.assert_array_equal(found[absent], results[0][0][1][absent])
    assert np.abs(found - results[0][0][1]).max() > 0.01


def test_padding_changes_no_vector_in_training():
    weight = jnp.asarray([1, 1, 1, 1, 0, 0], jnp.float32)
    one, other = inputs(0), inputs(1)
    padded = jax.tree.map(lambda a, b: jnp.concatenate([a[:4], b[4:]]), one, other)
    found = [both(nnx.split(towers()), x, True, weight) for x in (one, padded)]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a[:4], b[:4], rtol=1e-6)


def test_a_learned_temperature_starts_where_told_and_is_not_decayed():
    assert float(towers(temperature=0.2).scale()) == pytest.approx(5)
    model = towers(temperature=0.2, learn_temperature=True)
    assert float(model.scale()) == pytest.approx(5)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    slope = jax.grad(lambda p: nnx.merge(graph, p, rest).scale())(params)
    assert float(slope["log_scale"][...]) == pytest.approx(5)
    assert not re.search(OptimConfig().decay_mask, "log_scale")
    model.log_scale[...] = jnp.float32(9)
    assert float(model.scale()) == pytest.approx(100)


def test_freshness_is_a_rate_that_starts_at_nothing_and_is_not_decayed():
    model = towers(freshness=True)
    assert float(model.rate()) == 0
    model.age_bias[...] = jnp.float32(0.5)
    assert float(model.rate()) == 0.5
    assert not re.search(OptimConfig().decay_mask, "age_bias")
    without = towers(freshness=False)
    assert float(without.rate()) == 0
    assert not hasattr(without, "age_bias")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tower_widths": ()}, r"got tower_widths \(\)"),
        ({"width": 0}, "width 0; expected at least one hidden layer"),
        ({"temperature": 0.0}, "temperature: got 0.0, expected above 0"),
        ({"dropout": 1.0}, "dropout: got 1.0"),
        ({"dtype": "float8"}, "expected one of float32, bfloat16"),
        ({"user_fields": 0, "user_dense": ()}, "user_dense: got none"),
        ({"item_fields": 0, "modalities": ()}, "modalities: got none"),
    ],
)
def test_options_that_make_no_towers_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TwoTowerConfig(**options)


def test_inputs_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"modalities: got \['content'\], expected"):
        towers().items(inputs()._replace(modalities={"content": jnp.zeros((B, 5))}))
