import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from folders import picture, small
from rich.console import Console

from umair_jax.data import store
from umair_jax.data.dataset import Dataset, Images, NoImages, probabilities
from umair_jax.data.sources import open_source
from umair_jax.prepare import prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    here = tmp_path_factory.mktemp("store")
    path = small(here / "mine")
    (path / "images/5.png").unlink()
    (path / "images/6.png").write_bytes(b"junk")
    prepare(open_source("folder", path), here / "made", max_bad_share=0.2,
            console=Console(quiet=True))  # fmt: skip
    return here / "made"


def test_load_gives_what_was_prepared(made):
    data = store.load(made)
    assert isinstance(data, Dataset)
    assert (data.name, data.simulated) == ("folder", False)
    assert data.items.illust_id == ("", *map(str, range(1, 13)))
    assert data.items.title[3] == "title 3"
    assert data.items.tags[0] == ()
    assert data.items.tags[3] == ("red", "t3")
    assert data.items.width.tolist() == [-1, 6, 6, 6, 6, -1, -1, 6, 6, 6, 6, 6, 6]
    assert data.items.published.tolist() == [-1] * 13
    assert len(data.users) == 5
    assert (np.diff(data.interactions.timestamp) >= 0).all()
    assert data.fingerprint
    assert data.catalogue_fingerprint


def test_pictures_by_row(made):
    data = store.load(made)
    assert isinstance(data.images, Images)
    assert data.image_bytes(1) == picture(1)
    assert data.image_bytes(12) == picture(12)
    assert [data.image_bytes(row) for row in (0, 5, 6)] == [b"", b"", b""]
    for row in (-1, 13):
        with pytest.raises(ValueError, match="expected 1 to 12"):
            data.image_bytes(row)
    assert NoImages().read(1) == b""


def test_pictures_from_threads_and_other_processes(made):
    images = store.load(made).images
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(images.read, [1, 12, 2, 6, 7] * 20))
    assert found == [picture(1), picture(12), picture(2), b"", picture(7)] * 20
    again = pickle.loads(pickle.dumps(images))  # as loaders that fork workers do
    assert again.read(4) == picture(4)


def test_what_is_no_data_set(tmp_path, made):
    assert store.describe(tmp_path) is None
    with pytest.raises(ValueError, match=r"expected a prepared data set; run python -m umair_jax"):
        store.load(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        store.load(tmp_path)
    described = json.loads((made / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"format": "0.1.0"}))
    with pytest.raises(ValueError, match=r"got format '0\.1\.0'; expected '1\.0\.0'"):
        store.load(tmp_path)


def test_true_probabilities_are_checked():
    assert probabilities(np.array([0.0, 1.0])).dtype == np.float32
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="row 2: got"):
            probabilities(np.array([0.5, wrong]))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
@pytest.mark.parametrize("table", ["interactions", "users", "items"])
def test_a_broken_file_is_named(made, tmp_path, table, harm):
    shutil.copytree(made, tmp_path / "data")
    (path,) = (tmp_path / "data/umair" / table).rglob("*array_record*")
    harm(path)
    with pytest.raises(ValueError, match=rf"{table}.*cannot be read .*; remove the data set's"):
        store.load(tmp_path / "data").image_bytes(2)


def test_a_broken_catalogue_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    cut(tmp_path / "data/catalogue.parquet")
    with pytest.raises(ValueError, match=r"catalogue\.parquet: cannot be read"):
        store.load(tmp_path / "data")


def test_a_log_that_is_not_the_one_described_is_refused(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    path = tmp_path / "data/dataset.json"
    description = json.loads(path.read_text())
    description["summary"]["interactions"] += 1
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="got 60 interactions, expected 61; remove the folder"):
        store.load(tmp_path / "data")
