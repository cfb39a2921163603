"""The error messages in docs/faq.md are those that the code gives."""

import sys
from pathlib import Path

import jax
import pytest
from folders import write
from rich.console import Console

from umair_jax.data import splits, store
from umair_jax.data.sources import open_source
from umair_jax.interop import files
from umair_jax.prepare import prepare
from umair_jax.training import record
from umair_jax.training.sharding import BatchPlacer, MeshConfig, make_mesh

TEXT = (Path(__file__).parent.parent / "docs/faq.md").read_text("utf-8")
ITEMS = "illust_id,title\n1,a\n2,b\n"
LOG = "user_id,illust_id,timestamp,label\nu,1,1709400000,1\nu,2,1709400000,0\n"


def said(function, *arguments):
    with pytest.raises(ValueError, match=r".") as caught:
        function(*arguments)
    return str(caught.value)


def quoted(message):
    """Whether the message stands there, line by line, as a block of code."""
    return "    error: " + message.replace("\n", "\n    ") + "\n" in TEXT


def prepared(place, **changed):
    """Prepares a folder of two items and two interactions, changed."""
    folder = write(place / "my_folder", {"items.csv": ITEMS, "interactions.csv": LOG} | changed)
    return prepare(open_source("folder", folder), place / "data", console=Console(quiet=True))


@pytest.mark.parametrize(
    "changed",
    [
        {"items.csv": "id,title\n1,a\n2,b\n"},
        {"interactions.csv": "user_id,illust_id\nu,1\n"},
        {"images/1.png": "not a picture"},
    ],
    ids=["another name", "no timestamps", "a broken picture"],
)
def test_faults_of_a_folder(changed, tmp_path):
    message = said(lambda: prepared(tmp_path, **changed)).replace(f"{tmp_path}/", "")
    assert quoted(message), message


def test_milliseconds(tmp_path):
    log = "user_id,illust_id,timestamp\nu,1,1709400000000\nu,2,1709400000001\n"
    message = said(lambda: prepared(tmp_path, **{"interactions.csv": log}))
    assert f"    {message.splitlines()[1].strip()}\n" in TEXT, message


def test_too_few_interactions(tmp_path):
    prepared(tmp_path)
    message = said(splits.split, store.load(tmp_path / "data"))
    assert quoted(message), message


def test_another_configuration(tmp_path):
    record.write_config(tmp_path, {"model": {"umcm": "senet"}})
    message = said(record.check_config, tmp_path, {"model": {"umcm": "attention"}})
    assert quoted(message.replace(str(tmp_path), "runs/base")), message


def test_what_may_change_is_listed():
    answer = TEXT.partition("holds a run with another configuration:")[2].partition("\n**")[0]
    missing = [
        key
        for key in record.MAY_CHANGE
        if f"`{key}`" not in answer and f"`{key.rpartition('.')[2]}`" not in answer
    ]
    assert missing == []


def test_devices_that_do_not_divide_the_batch():
    message = said(BatchPlacer, make_mesh(MeshConfig(), jax.devices()[:3]), 256)
    assert f'"{message.partition(";")[0]}"' in TEXT, message


def test_torch_is_not_installed(monkeypatch, tmp_path):
    (tmp_path / "x.pth").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    message = said(files.read, tmp_path / "x.pth")
    assert f'"{message.partition(": ")[2].partition(":")[0]}"' in TEXT, message
