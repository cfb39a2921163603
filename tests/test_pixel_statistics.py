import io

import numpy as np
import pytest
from PIL import Image

from umair_jax.data.pixel_statistics import NAMES, catalogue_statistics, pixel_statistics
from umair_jax.data.sources.openclipart import OpenClipart


def measured(image):
    return dict(zip(NAMES, pixel_statistics(np.asarray(image, np.uint8)), strict=True))


def flat(red, green, blue):
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (20, 30, 3))


def test_flat_pictures():
    white, black, red = (measured(flat(*c)) for c in ((255,) * 3, (0,) * 3, (255, 0, 0)))
    assert (white["brightness"], white["share_of_white"], white["share_of_black"]) == (1, 1, 0)
    assert (black["brightness"], black["share_of_white"], black["share_of_black"]) == (0, 0, 1)
    assert (red["saturation"], white["saturation"], black["saturation"]) == (1, 0, 0)
    assert red["colourfulness"] == pytest.approx(0.3 * np.hypot(255, 127.5))
    assert white["colourfulness"] == 0
    for facts in (white, black, red):
        assert facts["edge_density"] == facts["smoothness"] == facts["log_colours"] == 0


def test_edges_gradients_and_colours():
    stripes = np.zeros((20, 20, 3), np.uint8)
    stripes[:, 1::2] = 255
    facts = measured(stripes)
    assert facts["edge_density"] == pytest.approx(0.5)  # every step across, none along
    assert facts["smoothness"] == 0
    assert facts["log_colours"] == pytest.approx(np.log(2))
    ramp = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 3, axis=2)
    facts = measured(np.repeat(ramp, 10, axis=0))
    assert facts["smoothness"] == 1
    assert facts["edge_density"] == 0


@pytest.mark.parametrize(
    ("step", "smoothness", "edge_density"),
    [(1, 0, 0), (2, 1, 0), (11, 1, 0), (12, 0, 0), (48, 0, 0), (49, 0, 1)],
)
def test_a_step_on_a_bound_falls_to_one_side_at_every_grey(step, smoothness, edge_density):
    # Sums of rounded floats would put some greys on one side and some on the other.
    for grey in range(256 - step):
        facts = measured(np.array([[[grey] * 3, [grey + step] * 3]]))
        assert (facts["smoothness"], facts["edge_density"]) == (smoothness, edge_density), grey


def test_colours_are_counted_at_five_bits():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 40, 3), np.uint8)
    distinct = {tuple(pixel) for pixel in (image >> 3).reshape(-1, 3).tolist()}
    assert measured(image)["log_colours"] == pytest.approx(np.log(len(distinct)))


def test_tiny_pictures():
    for shape in ((1, 1, 3), (1, 7, 3), (7, 1, 3)):
        assert np.isfinite(pixel_statistics(np.full(shape, 9, np.uint8))).all()


def test_a_catalogue_is_standardised_and_keeps_its_order():
    images = OpenClipart(limit=60)._table["image"]
    points = catalogue_statistics(images)
    assert points.shape == (60, 8)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(points.std(axis=0), 1, atol=1e-9)
    np.testing.assert_allclose(points[::-1], catalogue_statistics(images[::-1]), atol=1e-9)
    buffer = io.BytesIO()
    Image.new("L", (5, 5), 7).save(buffer, "PNG")  # constant columns become 0, any mode is read
    np.testing.assert_array_equal(catalogue_statistics([buffer.getvalue()] * 3), np.zeros((3, 8)))
