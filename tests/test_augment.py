import jax
import jax.numpy as jnp
import numpy as np
import pytest

from umair_jax.models import augment
from umair_jax.models.augment import AugmentConfig

STILL = {"flip": 0.0, "rotate_degrees": 0.0, "scale": (1.0, 1.0), "shift": 0.0}
NOTHING = AugmentConfig(**STILL, background=0.0, repaint=0.0)
move, repaint = (jax.jit(f, static_argnums=2) for f in (augment.move, augment.repaint))


@pytest.fixture
def images():
    drawn = jax.random.uniform(jax.random.key(0), (3, 8, 10, 3))
    return jnp.ones((3, 16, 20, 3)).at[:, 4:12, 5:15].set(drawn)


def resampled(images, angle=0.0, size=1.0, shift=(0.0, 0.0), mirrored=1.0):
    count = len(images)
    return augment.resample(
        images,
        jnp.full(count, angle),
        jnp.full(count, size),
        jnp.tile(jnp.array(shift), (count, 1)),
        jnp.full(count, mirrored),
    )


def test_nothing_asked_changes_nothing(images):
    moved = move(jax.random.key(1), images, NOTHING)
    np.testing.assert_allclose(moved, images, atol=1e-6)
    same = repaint(jax.random.key(1), images, 0.0)
    # White's soft edge and the tone curve's smallest value leave the rest alone.
    np.testing.assert_allclose(same, jnp.clip(images, 1e-3, 1), atol=1e-5)


def test_mirror_half_turn_and_shift_are_exact(images):
    np.testing.assert_allclose(resampled(images, mirrored=-1.0), images[:, :, ::-1], atol=1e-5)
    turned = resampled(images, angle=float(jnp.pi))
    np.testing.assert_allclose(turned, images[:, ::-1, ::-1], atol=1e-4)
    # A quarter down, a tenth to the right; white comes in.
    shifted = resampled(images, shift=(0.25, 0.1))
    np.testing.assert_allclose(shifted[:, 4:, 2:], images[:, :-4, :-2], atol=1e-5)
    assert bool((shifted[:, :4] == 1).all())
    assert bool((shifted[:, :, :2] == 1).all())


def test_size_two_doubles_the_drawing(images):
    black = jnp.ones((1, 16, 16, 3)).at[:, 6:10, 6:10].set(0.0)
    doubled = resampled(black, size=2.0)
    inked = float((1 - doubled).sum() / (1 - black).sum())
    assert inked == pytest.approx(4.0, rel=0.05)
    assert float((1 - resampled(black, size=0.5)).sum() / (1 - black).sum()) < 0.5


def test_each_image_is_moved_its_own_way_and_reproducibly():
    images = jnp.tile(jax.random.uniform(jax.random.key(2), (1, 16, 16, 3)), (4, 1, 1, 1))
    cfg = AugmentConfig()
    moved = move(jax.random.key(3), images, cfg)
    np.testing.assert_array_equal(moved, move(jax.random.key(3), images, cfg))
    for i in range(1, 4):
        assert float(jnp.abs(moved[i] - moved[0]).max()) > 0.01
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1


def test_a_tinted_background_leaves_the_drawing_alone(images):
    dark = images.at[:, 4:12, 5:15].multiply(0.5)
    tinted = move(jax.random.key(4), dark, AugmentConfig(**STILL, background=1.0))
    np.testing.assert_allclose(tinted[:, 4:12, 5:15], dark[:, 4:12, 5:15], atol=1e-5)
    corner = tinted[:, 0, 0]
    assert bool((corner < 1).all())
    np.testing.assert_allclose(tinted[:, -1, -1], corner, atol=1e-5)


def test_other_paint_keeps_white_paper_and_shapes_but_not_colours(images):
    painted = repaint(jax.random.key(5), images, 1.0)
    assert float(painted.min()) >= 0
    assert float(painted.max()) <= 1
    np.testing.assert_allclose(painted[:, 0, 0], 1.0, atol=1e-3)
    assert float(jnp.abs(painted - images)[:, 4:12, 5:15].mean()) > 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flip": 1.5}, "flip: got 1.5"),
        ({"scale": (1.2, 0.8)}, "scale"),
        ({"shift": 1.0}, "shift"),
        ({"rotate_degrees": -1.0}, "rotate_degrees"),
    ],
)
def test_wrong_ranges_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AugmentConfig(**options)
