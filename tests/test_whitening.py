import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models.image_encoder import (
    ImageEncoder,
    ImageEncoderConfig,
    ImageVectors,
    fit_whitening,
)
from umair_jax.models.initialise import HostDraws
from umair_jax.models.whitening import Moments, Whitening


def correlated(count=4000, width=6, seed=0):
    rng = np.random.default_rng(seed)
    mixture = rng.normal(size=(width, width)) * np.geomspace(1, 20, width)
    return (rng.normal(size=(count, width)) @ mixture + 5).astype(np.float32)


def fitted(vectors, outputs, shrinkage=0.0):
    moments = Moments(vectors.shape[1])
    for start in range(0, len(vectors), 700):
        moments.add(vectors[start : start + 700])
    made = Whitening(vectors.shape[1], outputs)
    made.fit(moments, shrinkage)
    return made


def test_whitened_vectors_are_uncorrelated_with_variance_one():
    vectors = correlated()
    white = np.asarray(fitted(vectors, 6)(jnp.asarray(vectors)))
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(white.T), np.eye(6), atol=2e-3)


def test_fewer_outputs_keep_the_directions_of_most_variance():
    vectors = correlated()
    white = np.asarray(fitted(vectors, 2)(jnp.asarray(vectors)))
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)
    left, size, _ = np.linalg.svd(scaled, full_matrices=False)
    for i in range(2):
        assert abs(np.corrcoef(white[:, i], left[:, i])[0, 1]) == pytest.approx(1, abs=1e-4)
    assert size[0] > size[1] > size[2]


def test_units_of_the_inputs_do_not_matter_and_batches_neither():
    vectors = correlated()
    factors = np.geomspace(0.01, 100, 6).astype(np.float32)
    one = fitted(vectors, 4, 1e-3)(jnp.asarray(vectors))
    other = fitted(vectors * factors, 4, 1e-3)(jnp.asarray(vectors * factors))
    np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)
    moments = Moments(6)
    moments.add(vectors)
    whole = Whitening(6, 4)
    whole.fit(moments, 1e-3)
    np.testing.assert_allclose(whole(jnp.asarray(vectors)), one, rtol=1e-3, atol=1e-4)


def test_noise_and_constants_are_not_blown_up():
    vectors = correlated(300)
    flat = np.concatenate([vectors, np.full((300, 1), 3, np.float32)], 1)
    flat = np.concatenate([flat, flat[:, :1]], 1)  # no direction of its own
    white = np.asarray(fitted(flat, 8, 1e-2)(jnp.asarray(flat)))
    assert np.isfinite(white).all()
    assert np.abs(white).max() < 20


@pytest.mark.parametrize("vectors", [np.ones((6, 9)), correlated(5, 9)])
@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
def test_what_no_vector_varies_in_says_nothing(vectors, shrinkage):
    white = np.asarray(fitted(vectors.astype(np.float32), 8, shrinkage)(jnp.asarray(vectors)))
    assert np.isfinite(white).all()
    assert np.abs(white).max() < 20


def test_an_encoder_whitens_both_vectors_and_reads_raw_ones():
    cfg = ImageEncoderConfig(
        base_width=4,
        blocks=(1, 1),
        content_stage=2,
        image_size=16,
        whiten_content=8,
        whiten_style=4,
    )
    assert (cfg.content_width, cfg.style_width) == (8, 4)
    encoder = ImageEncoder(cfg, rngs=HostDraws(0))
    images = jnp.asarray(np.random.default_rng(0).random((40, 16, 16, 3), np.float32))
    content, (style,) = encoder.read(encoder.maps(images))
    assert (content.shape, style.shape) == ((40, 32), (40, 16))
    fit_whitening(encoder, [ImageVectors(np.asarray(content), np.asarray(style))])
    vectors = encoder(images)
    assert (vectors.content.shape, vectors.style.shape) == ((40, 8), (40, 4))
    np.testing.assert_allclose(np.asarray(vectors.content).mean(0), 0, atol=1e-3)
    correlation = np.corrcoef(np.asarray(vectors.content).T)
    assert np.abs(correlation - np.eye(8)).max() < 0.05


def test_wrong_widths_and_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="got a width of 7, expected 1 to 6"):
        Whitening(6, 7)
    with pytest.raises(ValueError, match="whiten_style: got 65, expected 0 to 64"):
        ImageEncoderConfig(whiten_style=65)
    with pytest.raises(ValueError, match="got 1 vectors"):
        fitted(correlated(1), 2)
