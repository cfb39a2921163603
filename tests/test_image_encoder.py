from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from umair_jax.models import weights
from umair_jax.models.image_encoder import (
    ImageEncoder,
    ImageEncoderConfig,
    batch_statistics,
    semantic_content,
)
from umair_jax.models.initialise import HostDraws
from umair_jax.models.style import StyleConfig

GOLDEN = Path(__file__).parent / "golden"
SMALL = {"base_width": 4, "blocks": (2, 1, 1, 1), "image_size": 32}


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(3), (4, 32, 32, 3))


@pytest.mark.parity
def test_content_head_matches_the_published_pooling():
    with np.load(GOLDEN / "gap_semantic_head.npz", allow_pickle=False) as golden:
        np.testing.assert_allclose(
            semantic_content(jnp.asarray(golden["x"])), golden["y"], rtol=1e-5, atol=1e-6
        )


def test_paper_size_by_shape():
    cfg = ImageEncoderConfig(base_width=64, image_size=512)
    assert (cfg.content_width, cfg.style_width) == (2048, 256)
    model = nnx.eval_shape(lambda: ImageEncoder(cfg, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, 512, 512, 3), jnp.bfloat16)
    vectors = jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, images)
    assert vectors.content.shape == (2, 2048)
    assert vectors.style.shape == (2, 256)
    assert vectors.content.dtype == vectors.style.dtype == jnp.float32


def test_pre_activation_and_style_blocks_change_what_is_read(images):
    vectors = {}
    for name, options in {
        "default": {},
        "relu": {"pre_activation": False},
        "one": {"style": StyleConfig(blocks=1)},
    }.items():
        model = ImageEncoder(ImageEncoderConfig(**SMALL, **options), rngs=HostDraws(0))
        vectors[name] = model(images)
    assert float(vectors["relu"].content.min()) >= 0
    assert float(vectors["default"].content.min()) < 0
    # Fewer blocks under the maximum: never a larger value.
    assert bool((vectors["one"].style <= vectors["default"].style).all())
    np.testing.assert_array_equal(vectors["one"].content, vectors["default"].content)


def test_mean_and_std_are_applied(images):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    plain = ImageEncoder(ImageEncoderConfig(**SMALL), rngs=HostDraws(0))
    scaled = ImageEncoder(ImageEncoderConfig(**SMALL, mean=mean, std=std), rngs=HostDraws(0))
    by_hand = plain((images - jnp.array(mean)) / jnp.array(std))
    np.testing.assert_allclose(scaled(images).content, by_hand.content, rtol=1e-5, atol=1e-6)


def test_batch_statistics_normalise_that_batch_and_leave_the_encoder_alone(images):
    model = ImageEncoder(ImageEncoderConfig(**SMALL), rngs=HostDraws(0))
    before = weights.flatten(model)
    measured = batch_statistics(model, images)
    for name, array in weights.flatten(model).items():
        np.testing.assert_array_equal(array, before[name])
    variables = nnx.state(model, nnx.BatchStat)
    nnx.replace_by_pure_dict(variables, measured)
    nnx.update(model, variables)
    calibrated = model(images)
    trained = model(images, train=True)
    np.testing.assert_allclose(calibrated.content, trained.content, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(calibrated.style, trained.style, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"style": StyleConfig(stages=(1, 5))}, "style.stages: got 5"),
        ({"style": StyleConfig(blocks=4)}, "style.blocks: got 4"),
        ({"content_stage": 5}, "content_stage: got 5"),
        ({"content_block": 24}, "content_block: got 24, expected 0 to 3"),
        ({"image_size": 16}, "image_size"),
        ({"mean": (0.5,)}, "mean"),
        ({"depth": 18}, "depth"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ImageEncoderConfig(**options)
