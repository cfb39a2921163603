import io

import numpy as np
import pytest
from PIL import Image

from umair_jax.data import picture_batches
from umair_jax.data.images import load_square
from umair_jax.data.picture_batches import PictureSource

ROWS = np.arange(1, 11, dtype=np.int32)


class Pictures:
    def __init__(self, broken=()):
        self.broken = broken

    def image_bytes(self, row):
        if row in self.broken:
            return b"not a picture"
        file = io.BytesIO()
        Image.new("RGB", (20, 10), (row * 20, 0, 255 - row * 20)).save(file, "PNG")
        return file.getvalue()


def source(pictures=None, **options):
    return PictureSource(pictures or Pictures(), ROWS, 4, 16, **options)


def test_each_item_comes_with_its_own_picture():
    for k in range(4):
        batch = source(seed=3).batch(k)
        assert batch["image"].shape == (4, 16, 16, 3)
        assert batch["image"].dtype == np.uint8
        for row, image in zip(batch["item"], batch["image"], strict=True):
            np.testing.assert_array_equal(image, load_square(Pictures().image_bytes(row), 16))


def test_a_batch_depends_on_its_number_alone_and_hosts_share_it():
    one, other = source(seed=5), source(seed=5, threads=1)
    list(one.iterate(0, 3))
    for k in (2, 0):
        whole = one.batch(k)
        halves = [other.batch(k, rows) for rows in (slice(0, 2), slice(2, 4))]
        for name, array in whole.items():
            np.testing.assert_array_equal(array, np.concatenate([h[name] for h in halves]))


def test_a_broken_picture_is_white_weighs_nothing_and_is_reported():
    made = source(Pictures(broken=(3, 7)), shuffle=False)
    batches = list(made.padded_batches())
    items = np.concatenate([b["item"] for b in batches])
    weights = np.concatenate([b["weight"] for b in batches])
    images = np.concatenate([b["image"] for b in batches])
    assert set(items[weights == 0][:2]) == {3, 7}
    assert (images[items == 3] == 255).all()
    assert weights.sum() == 8
    found = picture_batches.report({"train": made})
    assert [(bad["row"], bad["part"]) for bad in found] == [(3, "train"), (7, "train")]
    assert "not an image" in str(found[0]["reason"])


def test_too_large_a_picture_is_broken():
    made = source(pixel_limit=100, shuffle=False)
    assert not made.batch(0)["weight"].any()
    assert all("too large" in reason for reason in made.bad.values())


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="no examples"):
        PictureSource(Pictures(), ROWS[:0], 4, 16)
