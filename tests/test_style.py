import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models import style
from umair_jax.models.initialise import HostDraws
from umair_jax.models.style import StyleConfig, StyleHead, gram_style

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parity
@pytest.mark.parametrize("name", ["style_gram_head", "style_gram_head_256"])
def test_style_and_its_gradients_match_the_published_head(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        blocks = [jnp.asarray(golden[key]) for key in ("add", "add_1", "add_2")]
        y, back = jax.vjp(lambda *maps: gram_style(maps), *blocks)
        np.testing.assert_allclose(y, golden["y"], rtol=1e-5, atol=1e-6)
        for key, gradient in zip(
            ("add", "add_1", "add_2"), back(jnp.asarray(golden["ct"])), strict=True
        ):
            np.testing.assert_allclose(gradient, golden[f"g/{key}"], rtol=1e-4, atol=1e-6)


def test_bfloat16_maps_are_multiplied_in_float32():
    maps = jax.random.normal(jax.random.key(0), (2, 5, 5, 8)).astype(jnp.bfloat16)
    np.testing.assert_allclose(
        gram_style([maps]), gram_style([maps.astype(jnp.float32)]), rtol=1e-6
    )


def test_style_ignores_where_things_are():
    maps = jax.random.normal(jax.random.key(1), (2, 4, 6, 8))
    moved = jnp.roll(maps[:, ::-1], 3, axis=2)
    np.testing.assert_allclose(gram_style([moved]), gram_style([maps]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_gives_the_whole_matrix(channels):
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, channels)).astype(np.float32)
    rows = maps.reshape(2, 12, channels).astype(np.float64)
    expected = rows.swapaxes(1, 2) @ rows / 12
    row, column = np.triu_indices(channels)
    triangle = gram_style([jnp.asarray(maps)], pool="triangle")
    np.testing.assert_allclose(triangle, expected[:, row, column], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        gram_style([jnp.asarray(maps)], pool="mean"), expected.mean(1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_accelerators_take_the_same_products_in_one_piece(dtype):
    maps = jax.random.normal(jax.random.key(3), (2, 30, 7)).astype(dtype)
    for products in (style._by_halves(maps), style._product(maps, maps)):
        expected = np.einsum("bpc,bpd->bcd", *2 * [np.asarray(maps, np.float64)])
        np.testing.assert_allclose(products, expected, atol=1e-4)
    traced = jax.jit(style._gram).trace(maps[:, :, None])
    texts = [traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda", "tpu")]
    assert ["2x30x3x" in text for text in texts] == [True, False, False]  # a copy of a half


def test_nothing_to_look_at_is_an_error():
    with pytest.raises(ValueError, match="at least one block"):
        gram_style([])


@pytest.fixture
def stages():
    keys = jax.random.split(jax.random.key(5), 3)
    stem = jax.nn.relu(jax.random.normal(keys[0], (3, 16, 16, 2)))
    one = tuple(jax.random.normal(k, (3, 8, 8, 4)) for k in keys)
    two = tuple(jax.random.normal(k, (3, 4, 4, 6)) for k in keys[:2])
    return ((stem,), one, two)


def head(cfg):
    return StyleHead(cfg, channels=(2, 4, 6), blocks=(1, 3, 2), rngs=HostDraws(0))


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({}, 4),
        ({"blocks": 1, "stages": (2,)}, 6),
        ({"stages": (1, 2)}, 10),
        ({"pool": "triangle"}, 10),
        ({"pool": "triangle", "combine": "concat"}, 30),
        ({"pool": "mean", "combine": "concat", "stages": (1, 2)}, 24),
        ({"combine": "concat", "blocks": 2}, 8),
        ({"pool": "triangle", "projection": 7}, 7),
        ({"stages": (0,)}, 2),
        ({"stages": (0, 1), "kernel": "gaussian", "frequencies": 5}, 10),
        ({"kernel": "gaussian", "frequencies": 5, "combine": "concat"}, 15),
    ],
)
def test_widths_are_those_that_the_config_promises(options, width, stages):
    cfg = StyleConfig(**options)
    made = head(cfg)
    assert made.width == width
    (vectors,) = made(stages)
    assert vectors.shape == (3, width)


def test_options_by_hand(stages):
    grams = [np.einsum("bhwc,bhwd->bcd", m, m) / 64 for m in map(np.asarray, stages[1])]
    row, column = np.triu_indices(4)
    expected = {
        ("max", "concat"): np.concatenate([g.max(1) for g in grams], 1),
        ("mean", "max"): np.maximum.reduce([g.mean(1) for g in grams]),
        ("triangle", "max"): np.maximum.reduce(grams)[:, row, column],
    }
    for (pool, combine), vectors in expected.items():
        found = gram_style(stages[1], pool, combine)
        np.testing.assert_allclose(found, vectors, rtol=1e-4, atol=1e-6)
    compressed = head(StyleConfig(compress=True))(stages)[0]
    plain = np.asarray(gram_style(stages[1]))
    np.testing.assert_allclose(
        compressed, np.sign(plain) * np.log1p(100 * np.abs(plain)), rtol=1e-5
    )


def test_channel_norms_forget_what_they_divide_by(stages):
    channels, positions = jnp.array([1.0, 5.0, 0.2, 3.0]), jnp.arange(1.0, 9.0)[None, :, None, None]
    for norm, factor in (("channel", channels), ("position", positions)):
        scaled = [m * factor for m in stages[1]]
        np.testing.assert_allclose(
            gram_style(scaled, channel_norm=norm),
            gram_style(stages[1], channel_norm=norm),
            rtol=1e-3,
        )
        assert float(jnp.abs(gram_style(scaled) - gram_style(stages[1])).max()) > 0.1


@pytest.mark.parametrize("options", [{"pool": "triangle"}, {"kernel": "gaussian"}])
def test_halves_are_read_apart_and_make_up_the_whole(options, stages):
    made = head(StyleConfig(blocks=1, **options))
    across = jnp.array([False, True, False])
    one, other = made(stages, across=across)
    (whole,) = made(stages)
    np.testing.assert_allclose((one + other) / 2, whole, rtol=1e-4, atol=1e-6)
    left, top = ([m[:, :, :4] for m in stages[1]], [m[:, :4] for m in stages[1]])
    for i, cut in enumerate((left, top, left)):
        np.testing.assert_allclose(one[i], made((stages[0], cut))[0][i], rtol=1e-4, atol=1e-6)


def test_a_stride_reads_every_nth_position(stages):
    thinned = [[block[:, ::2, ::2] for block in blocks] for blocks in stages]
    for options in ({}, {"kernel": "gaussian"}):
        cfg = StyleConfig(stages=(0, 2), **options)
        strided = head(dataclasses.replace(cfg, stride=2))(stages)[0]
        np.testing.assert_allclose(strided, head(cfg)(thinned)[0], rtol=1e-5, atol=1e-6)


def test_inner_products_of_gaussian_styles_are_a_gaussian_kernel_between_positions(stages):
    bandwidths, features = (0.4, 1.0), 20_000
    options = {"kernel": "gaussian", "frequencies": features, "bandwidths": bandwidths}
    made = head(StyleConfig(blocks=1, **options))
    (style,) = made(stages, train=True, momentum=0.0)
    rows = np.asarray(stages[1][0], np.float64).reshape(3, 64, 4)
    squares = np.square(rows[:, None, :, None] - rows[None, :, None]).sum(-1)
    between_any_two = squares.mean() / 2
    kernel = np.mean(
        [np.exp(-squares / (2 * b**2 * between_any_two)).mean((2, 3)) for b in bandwidths], 0
    )
    # Each product of two cosines has a mean of half the kernel.
    np.testing.assert_allclose(2 * (style @ style.T) / features, kernel, atol=0.01)
    assert kernel.max() - kernel.min() > 0.05


def test_gaussian_styles_forget_where_things_are_and_how_large_features_are(stages):
    made = head(StyleConfig(kernel="gaussian"))
    (style,) = made(stages, train=True, momentum=0.0)
    moved = [[3 * jnp.roll(m[:, ::-1], 3, axis=2) for m in maps] for maps in stages]
    np.testing.assert_allclose(
        made(moved, train=True, momentum=0.0)[0], style, rtol=1e-3, atol=1e-4
    )
    # What was measured in training is used afterwards, and the draws are still the same.
    np.testing.assert_allclose(made(moved)[0], style, rtol=1e-3, atol=1e-4)
    assert float(jnp.abs(made(stages)[0] - style).max()) > 0.1


def test_standardised_vectors_have_mean_zero_and_variance_one_and_remember(stages):
    made = head(StyleConfig(standardise=True))
    (trained,) = made(stages, train=True, momentum=0.0)
    np.testing.assert_allclose(trained.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(trained.var(0), 1, rtol=1e-3)
    np.testing.assert_allclose(made(stages)[0], trained, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"pool": "triangle", "combine": "concat"}])
def test_half_precision_maps_stay_within_a_hundredth_of_float64(dtype, options):
    maps = jax.random.normal(jax.random.key(7), (2, 28, 28, 64), jnp.float32)
    found = gram_style([maps.astype(dtype)], **options)
    exact = np.asarray(maps, np.float64)
    gram = np.einsum("bhwc,bhwd->bcd", exact, exact) / 784
    row, column = np.triu_indices(64)
    expected = gram[:, row, column] if options else gram.max(1)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "min"},
        {"combine": "sum"},
        {"kernel": "cubic"},
        {"stages": ()},
        {"stages": (1, 1)},
        {"projection": -1},
        {"stride": 0},
        {"frequencies": 0},
        {"bandwidths": (0.1, 0.0)},
    ],
)
def test_wrong_style_options_are_refused(options):
    with pytest.raises(ValueError, match="style"):
        StyleConfig(**options)
