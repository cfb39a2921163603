import numpy as np
import pytest

from umair_jax.data import feature_bank
from umair_jax.data.feature_bank import Shard, read_shard, shard_path, write_manifest, write_shard

SIZES = {"content": 4, "style": 2, "text": 3}


def shard(start: int, rows: int, **changes) -> Shard:
    generator = np.random.default_rng(start)
    arrays = {
        name: generator.normal(size=(rows, width)).astype(np.float32)
        for name, width in SIZES.items()
    }
    arrays |= {"has_image": np.ones(rows, bool), "has_text": np.arange(rows) % 2 == 0}
    return Shard(start, {**arrays, **changes}, ((start, "broken: “why”"),), {"texts": rows})


def manifest(items: int, shards: int) -> dict:
    return {
        "format_version": feature_bank.FORMAT_VERSION,
        "key": "k",
        "items": items,
        "shards": shards,
        "sizes": SIZES,
        "trained": False,
    }


def test_shards_come_back_as_one_bank(tmp_path):
    first, second = shard(1, 3), shard(4, 2)
    write_shard(tmp_path, 0, first, "k")
    write_shard(tmp_path, 1, second, "k")
    write_manifest(tmp_path, manifest(5, 2))
    bank = feature_bank.load(tmp_path)
    assert bank.items == 5
    assert not bank.trained
    assert bank.content.shape == (6, 4)
    for name in ("content", "style", "text", "has_image", "has_text"):
        whole = getattr(bank, name)
        assert not whole[0].any()
        np.testing.assert_array_equal(whole[1:4], first.arrays[name])
        np.testing.assert_array_equal(whole[4:], second.arrays[name])
    back = read_shard(tmp_path, 1, "k")
    assert back is not None
    assert (back.start, back.bad_images, back.counts) == (4, second.bad_images, {"texts": 2})


def test_half_precision_on_disk_is_float32_in_memory(tmp_path):
    one = shard(1, 2)
    write_shard(tmp_path, 0, one, "k", "float16")
    write_manifest(tmp_path, manifest(2, 1))
    bank = feature_bank.load(tmp_path)
    assert bank.content.dtype == np.float32
    np.testing.assert_allclose(bank.content[1:], one.arrays["content"], rtol=1e-3)


def test_values_that_are_not_finite_are_refused_by_row(tmp_path):
    style = np.array([[1, 2], [1e6, 0]], np.float32)
    write_shard(tmp_path, 0, shard(7, 2, style=style), "k")
    with pytest.raises(ValueError, match=r"style vector of row 8.*float16"):
        write_shard(tmp_path, 0, shard(7, 2, style=style), "k", "float16")
    style[0, 0] = np.nan
    with pytest.raises(ValueError, match="style vector of row 7"):
        write_shard(tmp_path, 0, shard(7, 2, style=style), "k")


def test_foreign_broken_and_missing_shards_are_not_taken(tmp_path):
    assert read_shard(tmp_path, 0, "k") is None
    write_shard(tmp_path, 0, shard(1, 2), "k")
    assert read_shard(tmp_path, 0, "other") is None
    path = shard_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-5])
    assert read_shard(tmp_path, 0, "k") is None
    write_manifest(tmp_path, manifest(2, 1))
    with pytest.raises(ValueError, match=r"shard-00000.safetensors is missing, broken"):
        feature_bank.load(tmp_path)


def test_no_bank_and_another_version_are_errors(tmp_path):
    with pytest.raises(ValueError, match="expected a finished bank"):
        feature_bank.load(tmp_path)
    write_manifest(tmp_path, {**manifest(0, 0), "format_version": 0})
    with pytest.raises(ValueError, match="format version 0"):
        feature_bank.load(tmp_path)
