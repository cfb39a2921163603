"""Cross networks: published numbers with gradients, and the definition of the mixture."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models import cross
from umair_jax.models.cross import CrossConfig, CrossNetwork

GOLDEN = Path(__file__).parent / "golden"


def outputs_and_gradients(network, x, ct):
    graph, params = nnx.split(network)

    def apply(params, x):
        y = nnx.merge(graph, params)(x)
        return (y * ct).sum(), y

    (_, y), (dparams, dx) = jax.jit(jax.value_and_grad(apply, (0, 1), has_aux=True))(
        nnx.to_pure_dict(params), jnp.asarray(x)
    )
    return y, dx, dparams


def close(ours, theirs, name):
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parity
def test_mixture_matches_the_published_numbers():
    data = np.load(GOLDEN / "crossnetmix.npz")
    network = CrossNetwork(24, CrossConfig("mixture", 2, 4, 3), rngs=nnx.Rngs(0))

    def stack(prefix, layer):
        """Published [K, D, R] arrays to ours: v [D, K*R], c [K, R, R] on the right, u [K*R, D]."""
        v, c, u = (data[f"{prefix}{letter}{layer}"] for letter in "VCU")
        return {
            "v": v.transpose(1, 0, 2).reshape(24, 12),
            "c": c.transpose(0, 2, 1),
            "u": u.transpose(0, 2, 1).reshape(12, 24),
            "bias": data[f"{prefix}bias{layer}"][:, 0],
        }

    for layer in (0, 1):
        for name, value in stack("w/", layer).items():
            getattr(network.layers[f"layer_{layer}"], name)[...] = value
    network.gate[...] = np.concatenate([data[f"w/gate{expert}"] for expert in range(3)], axis=1)
    y, dx, dparams = outputs_and_gradients(network, data["x"], data["ct"])
    close(y, data["y"], "y")
    close(dx, data["g/x"], "dx")
    for layer in (0, 1):
        for name, value in stack("g/w/", layer).items():
            close(dparams["layers"][f"layer_{layer}"][name], value, f"{name}{layer}")
    gates = np.concatenate([data[f"g/w/gate{expert}"] for expert in range(3)], axis=1)
    close(dparams["gate"], gates, "gate")


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "kind", "layers", "kernel", "bias"),
    [
        ("crossnet_vector", "vector", 2, "W", "b"),
        ("edcn_crossnet_vector", "vector", 3, "k", "b"),
        ("edcn_crossnet_matrix", "matrix", 3, "k", "b"),
    ],
)
def test_plain_crosses_match_the_published_numbers(name, kind, layers, kernel, bias):
    data = np.load(GOLDEN / f"{name}.npz")
    network = CrossNetwork(24, CrossConfig(kind, layers), rngs=nnx.Rngs(0))

    def ours(array):
        return array.T if kind == "matrix" else array.reshape(24, 1)

    for index in range(layers):
        layer = network.layers[f"layer_{index}"]
        layer.kernel[...] = ours(data[f"w/{kernel}{index}"])
        layer.bias[...] = data[f"w/{bias}{index}"].reshape(24)
    y, dx, dparams = outputs_and_gradients(network, data["x"], data["ct"])
    close(y, data["y"], "y")
    close(dx, data["g/x"], "dx")
    for index in range(layers):
        gradient = dparams["layers"][f"layer_{index}"]
        close(gradient["kernel"], ours(data[f"g/w/{kernel}{index}"]), f"kernel {index}")
        close(gradient["bias"], data[f"g/w/{bias}{index}"].reshape(24), f"bias {index}")


@pytest.mark.parametrize("widest", [0, 256])
def test_mixture_equals_a_loop_over_its_experts(widest, monkeypatch):
    monkeypatch.setattr(cross, "BLOCK_DIAGONAL_WIDTH", widest)
    network = CrossNetwork(10, CrossConfig("mixture", 2, 3, 4), rngs=nnx.Rngs(0))
    x0 = jax.random.normal(jax.random.key(0), (6, 10))
    x = x0
    for index in range(2):
        layer = network.layers[f"layer_{index}"]
        layer.bias[...] = jnp.linspace(-1, 1, 10)
        gates = jax.nn.softmax(x @ network.gate[...], axis=-1)
        moved = 0.0
        for expert in range(4):
            block = slice(3 * expert, 3 * expert + 3)
            low = jnp.tanh(jnp.tanh(x @ layer.v[...][:, block]) @ layer.c[...][expert])
            moved += gates[:, expert, None] * x0 * (low @ layer.u[...][block] + layer.bias[...])
        x = x + moved
    np.testing.assert_allclose(network(x0), x, atol=1e-5)


def test_low_rank_equals_a_matrix_of_that_rank():
    low = CrossNetwork(10, CrossConfig("low_rank", 2, 3), rngs=nnx.Rngs(0))
    full = CrossNetwork(10, CrossConfig("matrix", 2), rngs=nnx.Rngs(0))
    for index in range(2):
        name = f"layer_{index}"
        full.layers[name].kernel[...] = low.layers[name].v[...] @ low.layers[name].u[...]
    x = jax.random.normal(jax.random.key(0), (6, 10))
    np.testing.assert_allclose(low(x), full(x), atol=1e-5)


def test_none_is_the_identity():
    x = jnp.ones((2, 4))
    np.testing.assert_array_equal(CrossNetwork(4, CrossConfig("none"), rngs=nnx.Rngs(0))(x), x)


@pytest.mark.parametrize("kind", ["vector", "matrix", "low_rank", "mixture"])
def test_bfloat16_stays_close(kind):
    x = jax.random.normal(jax.random.key(0), (32, 64))
    full = CrossNetwork(64, CrossConfig(kind, 2, 8, 3), rngs=nnx.Rngs(0))(x)
    low = CrossNetwork(64, CrossConfig(kind, 2, 8, 3, "bfloat16"), rngs=nnx.Rngs(0))(x)
    assert low.dtype == jnp.float32
    assert np.abs(low - full).max() < 0.03 * np.abs(full).max()


def test_initial_scale_is_keras_glorot_normal_over_all_experts():
    network = CrossNetwork(128, CrossConfig("mixture", 1, 32, 4), rngs=nnx.Rngs(0))
    expected = np.sqrt(2 / (4 * (128 + 32)))
    layer = network.layers["layer_0"]
    for name in ("v", "u"):
        np.testing.assert_allclose(np.std(getattr(layer, name)[...]), expected, rtol=0.05)
    limit = np.sqrt(6 / 129)
    gate = np.abs(network.gate[...])
    assert 0.9 * limit < gate.max() <= limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "dcn"}, "'dcn', expected one of none, vector, matrix, low_rank, mixture"),
        ({"dtype": "half"}, "'half', expected one of float32, bfloat16"),
        ({"layers": 0}, "layers: got 0"),
        ({"rank": 0}, "rank: got 0"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CrossConfig(**arguments)
