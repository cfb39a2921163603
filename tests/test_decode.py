import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from umair_jax.data.dataset import CataloguePictures
from umair_jax.encoding import ExtractConfig, decoded_batches, in_batches
from umair_jax.models.image_encoder import ImageEncoderConfig

CONFIG = ExtractConfig(
    image=ImageEncoderConfig(base_width=4, blocks=(1, 1, 1, 1), image_size=32), image_batch=4
)


class Files:
    """Pictures of every kind: each item row has its own colour."""

    def read(self, row):
        if row % 7 == 3:
            return b""
        if row % 7 == 5:
            return b"broken"
        file, colour = io.BytesIO(), (row * 9 % 256, 200, 0)
        form = ("PNG", "JPEG", "WEBP", "GIF")[row % 4]
        Image.new("RGB", (40, 30), colour).save(file, form)
        return file.getvalue()


PICTURES = CataloguePictures(Files(), 30)
ROWS = range(1, 24)


def decoded(config):
    return list(decoded_batches(PICTURES, in_batches(ROWS, config.image_batch), config))


@pytest.fixture(scope="module")
def by_one_thread():
    return decoded(dataclasses.replace(CONFIG, decode_threads=1))


def test_batches_come_in_order_padded_with_white_and_faults_named(by_one_thread):
    sizes = [len(batch.usable) for batch in by_one_thread]
    assert sizes == [4, 4, 4, 4, 4, 3]
    assert all(batch.images.shape == (4, 32, 32, 3) for batch in by_one_thread)
    assert (by_one_thread[-1].images[3] == 255).all()
    assert sum(batch.missing for batch in by_one_thread) == 3
    reasons = [reason for batch in by_one_thread for reason in batch.reasons]
    assert [row for row, _ in reasons] == [5, 12, 19]
    assert all("not an image" in reason for _, reason in reasons)
    usable = np.concatenate([batch.usable for batch in by_one_thread])
    assert usable.tolist() == [row % 7 not in (3, 5) for row in ROWS]
    middle = np.concatenate([batch.images[:, 16, 16] for batch in by_one_thread])[:23]
    for row, colour, good in zip(ROWS, middle.astype(int), usable, strict=True):
        expected = (row * 9 % 256, 200, 0) if good else (255, 255, 255)
        assert np.abs(colour - expected).max() < 8, row  # JPEG


@pytest.mark.parametrize("options", [{"decode_threads": 3}, {"decode_workers": 2}])
def test_threads_and_processes_give_the_same(options, by_one_thread):
    for found, expected in zip(
        decoded(dataclasses.replace(CONFIG, **options)), by_one_thread, strict=True
    ):
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.usable, expected.usable)
        assert (found.reasons, found.missing) == (expected.reasons, expected.missing)


def test_no_batches_are_none():
    assert list(decoded_batches(PICTURES, [], CONFIG)) == []
