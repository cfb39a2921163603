import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from umair_jax.training import optimisers
from umair_jax.training.optimisers import OptimConfig, from_plain, make_optimiser, schedule_factor

PARAMS = {
    "layers": {
        0: {"kernel": np.array([[0.5, -1.0], [2.0, 0.1]]), "bias": np.array([1.0, -2.0])},
        1: {"scale": np.array([3.0])},
    }
}
PARAMS = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), PARAMS)


def gradients(steps=6, size=1.0):
    generator = np.random.default_rng(0)
    return [
        jax.tree.map(lambda p: jnp.asarray(size * generator.normal(size=p.shape), p.dtype), PARAMS)
        for _ in range(steps)
    ]


def run(config, given, total=10):
    optimiser = make_optimiser(config, total)
    params, state = PARAMS, optimiser.init(PARAMS)
    update = jax.jit(optimiser.update)
    for step, gradient in enumerate(given):
        params, state = update(gradient, state, params, jnp.int32(step))
    return params


def run_optax(transform, given):
    params, state = PARAMS, transform.init(PARAMS)
    for gradient in given:
        changes, state = transform.update(gradient, state, params)
        params = optax.apply_updates(params, changes)
    return params


def assert_close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


KERNELS = {"layers": {0: {"kernel": True, "bias": False}, 1: {"scale": False}}}


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (OptimConfig("adam", 0.1), optax.adam(0.1, eps=1e-7)),
        (OptimConfig("adam", 0.1, b1=0.8, b2=0.9, eps=0.1), optax.adam(0.1, 0.8, 0.9, 0.1)),
        (
            OptimConfig("adamw", 0.1, weight_decay=0.3),
            optax.adamw(0.1, eps=1e-7, weight_decay=0.3, mask=KERNELS),
        ),
        (OptimConfig("sgd", 0.1), optax.sgd(0.1)),
        (OptimConfig("sgd", 0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
        (
            OptimConfig("sgd", 0.1, clip_norm=0.5),
            optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1)),
        ),
        (
            OptimConfig("adam", 0.1, schedule="cosine", final_fraction=0.1),
            optax.adam(optax.cosine_decay_schedule(0.1, 10, 0.1), eps=1e-7),
        ),
    ],
)
def test_equal_to_optax(config, reference):
    given = gradients()
    assert_close(run(config, given), run_optax(reference, given), atol=1e-6)


def test_adam_by_hand():
    """Kingma and Ba, algorithm 1, in numpy."""
    given = gradients(4)
    weight = np.asarray(PARAMS["layers"][0]["kernel"], np.float64)
    m = v = np.zeros_like(weight)
    for t, gradient in enumerate(given, start=1):
        g = np.asarray(gradient["layers"][0]["kernel"], np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        weight = weight - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    ours = run(OptimConfig("adam", 0.1), given)["layers"][0]["kernel"]
    np.testing.assert_allclose(ours, weight, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_decay_outside_of_adamw_is_an_l2_penalty(name):
    given = gradients()
    params = PARAMS
    optimiser = make_optimiser(OptimConfig(name, 0.1), 10)
    state = optimiser.init(params)
    for step, gradient in enumerate(given):
        gradient = jax.tree.map(lambda g, p, on: g + 0.3 * p * on, gradient, params, KERNELS)
        params, state = optimiser.update(gradient, state, params, jnp.int32(step))
    assert_close(run(OptimConfig(name, 0.1, weight_decay=0.3), given), params, atol=1e-6)


def test_decay_mask_chooses_by_path():
    zero = [jax.tree.map(jnp.zeros_like, PARAMS)]
    decayed = run(OptimConfig("sgd", 0.1, weight_decay=0.5), zero)
    np.testing.assert_allclose(
        decayed["layers"][0]["kernel"], 0.95 * PARAMS["layers"][0]["kernel"], rtol=1e-6
    )
    np.testing.assert_array_equal(decayed["layers"][0]["bias"], PARAMS["layers"][0]["bias"])
    np.testing.assert_array_equal(decayed["layers"][1]["scale"], PARAMS["layers"][1]["scale"])
    only = run(OptimConfig("sgd", 0.1, weight_decay=0.5, decay_mask="^layers/1/"), zero)
    np.testing.assert_allclose(only["layers"][1]["scale"], [2.85], rtol=1e-6)
    np.testing.assert_array_equal(only["layers"][0]["kernel"], PARAMS["layers"][0]["kernel"])


def test_the_norm_is_clipped_over_all_leaves_and_before_the_decay():
    given = gradients(1, size=100)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(given[0])))
    clipped = jax.tree.map(lambda p, g: p - 0.1 * g * 2.0 / norm, PARAMS, given[0])
    assert_close(run(OptimConfig("sgd", 0.1, clip_norm=2.0), given), clipped, rtol=1e-5)
    # Below the norm nothing changes.
    small = gradients(1, size=1e-3)
    plain = run(OptimConfig("sgd", 0.1), small)
    assert_close(run(OptimConfig("sgd", 0.1, clip_norm=2.0), small), plain, rtol=1e-6)
    decayed = jax.tree.map(lambda c, p, on: c - 0.1 * 0.3 * p * on, clipped, PARAMS, KERNELS)
    both = run(OptimConfig("sgd", 0.1, clip_norm=2.0, weight_decay=0.3), given)
    assert_close(both, decayed, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {0: 1, 5: 1, 10: 1, 99: 1}),
        ({"warmup_fraction": 0.4}, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 10: 1}),
        ({"warmup_fraction": 0.1}, {0: 1, 1: 1}),
        ({"schedule": "linear"}, {0: 1, 5: 0.5, 9: 0.1, 10: 0, 99: 0}),
        ({"schedule": "linear", "final_fraction": 0.2}, {0: 1, 5: 0.6, 10: 0.2}),
        ({"schedule": "cosine"}, {0: 1, 5: 0.5, 10: 0, 99: 0}),
        ({"schedule": "cosine", "final_fraction": 0.2}, {0: 1, 5: 0.6, 10: 0.2}),
        ({"schedule": "linear", "warmup_fraction": 0.2}, {0: 0.5, 1: 1, 2: 1, 6: 0.5, 10: 0}),
        ({"schedule": "cosine", "warmup_fraction": 1.0}, {0: 0.1, 9: 1, 10: 1}),
    ],
)
def test_schedule_at_its_edges(change, expected):
    factor = schedule_factor(OptimConfig(**change), 10)
    for step, value in expected.items():
        assert float(factor(step)) == pytest.approx(value, abs=1e-6), step
        assert float(jax.jit(factor)(jnp.int32(step))) == pytest.approx(value, abs=1e-6)


def test_rate_is_the_peak_times_the_factor():
    config = OptimConfig(learning_rate=0.02, schedule="linear", warmup_fraction=0.2)
    optimiser = make_optimiser(config, 10)
    assert float(optimiser.rate(0)) == pytest.approx(0.01)
    assert float(optimiser.rate(6)) == pytest.approx(0.01)


ALL = OptimConfig("adamw", weight_decay=0.1, clip_norm=1.0)


@pytest.mark.parametrize("config", [ALL, OptimConfig("sgd", momentum=0.5), OptimConfig("sgd")])
def test_plain_states_go_there_and_back(config):
    optimiser = make_optimiser(config, 10)
    state = optimiser.transform.init(PARAMS)
    plain = optimisers.to_plain(state)
    back = from_plain(plain, jax.eval_shape(optimiser.transform.init, PARAMS))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_paths_of_a_state_do_not_depend_on_the_number_of_stages():
    long, short = (make_optimiser(c, 10).init(PARAMS) for c in (ALL, OptimConfig("adam")))
    assert set(long) == set(short) == {"adam"}
    assert set(short["adam"]) == {"count", "mu", "nu"}
    assert set(short["adam"]["mu"]["layers"][0]) == {"kernel", "bias"}
    assert make_optimiser(OptimConfig("sgd"), 10).init(PARAMS) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adagrad"}, "unknown optimiser 'adagrad'; allowed: adam, adamw, sgd"),
        ({"schedule": "step"}, "unknown schedule 'step'; allowed: constant, cosine, linear"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"clip_norm": -1.0}, "clip_norm must be 0 or more"),
        ({"warmup_fraction": 1.1}, r"warmup_fraction must lie in \[0, 1\], got 1.1"),
        ({"decay_mask": "("}, r"decay_mask '\(' is no regular expression"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**change)


def rated(*rates, **options):
    return OptimConfig("adamw", 0.1, weight_decay=0.3, rates=rates, **options)


def test_the_first_rate_that_matches_multiplies_the_step():
    given = gradients(1)
    whole = run(rated(), given)
    found = run(rated(("0/kernel", 0.25), ("^layers/0/", 0.5)), given)
    factors = {"layers": {0: {"kernel": 0.25, "bias": 0.5}, 1: {"scale": 1.0}}}
    assert_close(
        jax.tree.map(lambda new, old: new - old, found, PARAMS),
        jax.tree.map(lambda new, old, f: f * (new - old), whole, PARAMS, factors),
        atol=1e-6,
    )


def test_a_rate_of_zero_leaves_parameters_and_their_average_as_they_are():
    given = gradients(5, size=100.0)
    config = rated(("^layers/0/", 0.0), clip_norm=1.0, ema_decay=0.9)
    found = run(config, given)
    for name, leaf in PARAMS["layers"][0].items():
        np.testing.assert_array_equal(found["layers"][0][name], leaf)
    assert (found["layers"][1]["scale"] != PARAMS["layers"][1]["scale"]).all()
    # What does not learn has no share in the norm that is clipped.
    alone = [{"layers": g["layers"] | {0: jax.tree.map(jnp.zeros_like, g["layers"][0])}}
             for g in given]  # fmt: skip
    assert_close(found["layers"][1], run(config, alone)["layers"][1], rtol=0)
    optimiser = make_optimiser(config, 10)
    average = optimiser.average({"net": PARAMS}, {"net": PARAMS}, jnp.int32(7))
    np.testing.assert_array_equal(
        average["net"]["layers"][0]["kernel"], PARAMS["layers"][0]["kernel"]
    )


def test_wrong_rates_are_named():
    with pytest.raises(ValueError, match=r"optim\.rates: got 'image/'.*paths such as 'layers/0"):
        make_optimiser(rated(("layers", 1.0), ("image/", 0.1)), 10).init(PARAMS)
    with pytest.raises(ValueError, match=r"rates '\(' is no regular expression"):
        rated(("(", 1.0))
    with pytest.raises(ValueError, match=r"rates: got -1\.0 for 'a'; expected 0 or more"):
        rated(("a", -1.0))
