import subprocess
import sys

import numpy as np
import pytest
from folders import picture
from logs import random_log

from umair_jax.data import records
from umair_jax.data.dataset import Users
from umair_jax.data.sources import RawItem
from umair_jax.data.store import StoredImages


def items(n=3):
    return [
        RawItem("f", k, f"i{k}", title=f"Título {k} 桜", tags=("a", "b c")[: k % 3], width=k)
        for k in range(1, n + 1)
    ]


def test_items_hold_their_pictures_byte_by_byte(tmp_path):
    pictures = [picture(1), b"", picture(3, "JPEG")]
    rows = (records.item_record(i, p) for i, p in zip(items(), pictures, strict=True))
    records.write_items(tmp_path, rows)
    found = list(records._read("items", tmp_path))
    assert [bool(r["has_image"]) for r in found] == [True, False, True]
    assert found[1]["image"].shape == (1, 1, 3)  # stands in
    assert [r["title"].decode() for r in found] == [f"Título {k} 桜" for k in (1, 2, 3)]
    assert [[t.decode() for t in r["tags"]] for r in found] == [["a"], ["a", "b c"], []]
    assert [int(r["width"]) for r in found] == [1, 2, 3]
    assert [int(r["published"]) for r in found] == [-1] * 3
    assert len(records.item_files(tmp_path)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [records.ROOT]


def test_records_are_written_as_they_come_in_shards_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SHARD_RECORDS", 4)
    monkeypatch.setattr(records, "_AT_ONCE", 3)
    shards_at = []

    def made():
        for item in items(14):
            shards_at.append(len(list(tmp_path.rglob("*array_record*"))))
            yield records.item_record(item, picture(item.row))

    records.write_items(tmp_path, made())
    # A TFDS builder, and whoever keeps all records in memory, would have none before the last.
    assert shards_at[-1] >= 3
    found = list(records._read("items", tmp_path))
    assert [int(r["width"]) for r in found] == list(range(1, 15))
    assert len(records.item_files(tmp_path)) == 4
    images = StoredImages(records.item_files(tmp_path), np.ones(14, bool))
    assert [images.read(row) for row in (1, 4, 5, 14)] == [picture(k) for k in (1, 4, 5, 14)]


@pytest.mark.parametrize("chunk", [7, 65_536])
@pytest.mark.parametrize("mixture", [True, False])
def test_users_round_trip(tmp_path, monkeypatch, chunk, mixture):
    monkeypatch.setattr(records, "CHUNK", chunk)
    names = ("", *(f"ü{k}" for k in range(20)))
    true = np.random.default_rng(0).random((21, 4)).astype(np.float32) if mixture else None
    if true is not None:
        true[0] = 0
    users = Users(names, ("",) * 21, true)
    records.write_users(tmp_path, users)
    again = records.read_users(tmp_path)
    assert (again.user_id, again.username) == (users.user_id, users.username)
    if mixture:
        np.testing.assert_array_equal(again.true_mixture, true)
    else:
        assert again.true_mixture is None


@pytest.mark.parametrize("chunk", [7, 300, 65_536])
@pytest.mark.parametrize("extra", [(), ("true_probability",), ("sampled",)])
def test_interactions_round_trip(tmp_path, monkeypatch, chunk, extra):
    monkeypatch.setattr(records, "CHUNK", chunk)
    log = random_log(0)
    columns = {name: getattr(log, name) for name in ("user", "item", "timestamp", "label")}
    if "true_probability" in extra:
        columns["true_probability"] = np.linspace(0, 1, len(log), dtype=np.float32)
    if "sampled" in extra:
        columns["sampled"] = np.arange(len(log)) % 3 == 0
    log = type(log)(**columns)
    records.write_interactions(tmp_path, log)
    again = records.read_interactions(tmp_path)
    for name in ("user", "item", "timestamp", "label", "true_probability", "sampled"):
        expected, found = getattr(log, name), getattr(again, name)
        assert (expected is None) == (found is None)
        if expected is not None:
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_without_tensorflow_and_from_anywhere(tmp_path):
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from folders import small
from rich.console import Console
from umair_jax.data import store
from umair_jax.data.sources import open_source
from umair_jax.prepare import prepare
here = Path({str(tmp_path)!r})
source = open_source("folder", small(here / "mine"))
prepare(source, here / "made", console=Console(quiet=True))
first = store.load(here / "made")
(here / "made").rename(here / "moved")
again = store.load(here / "moved")
assert again.fingerprint == first.fingerprint
assert again.image_bytes(3) == (here / "mine/images/3.png").read_bytes()
assert len(again.interactions) == 60
wrong = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "torch", "jax")]
assert "tensorflow" not in wrong, wrong
print("done")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("done\n")
