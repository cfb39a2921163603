import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import LOG, START, folder_of, items_of, log_of, picture, small, where, write

from umair_jax.data.report import Report
from umair_jax.data.sources import Source, comma_separated, open_source, tables
from umair_jax.data.sources.folder import Folder


def test_every_format_gives_the_same(tmp_path):
    records = [
        {"illust_id": "7", "title": "sea, sand", "tags": ["a", "b"], "width": 30, "published": 99},
        {"illust_id": "8", "title": "", "tags": [], "width": None, "published": None},
    ]
    log = [
        {"user_id": "u", "illust_id": "7", "timestamp": START, "label": 1, "username": "U"},
        {"user_id": "v", "illust_id": "8", "timestamp": START + 1, "label": 0, "username": ""},
    ]
    for name in ("csv", "parquet", "jsonl"):
        (tmp_path / name).mkdir()
    write(
        tmp_path / "csv",
        {
            "items.csv": 'illust_id,title,tags,width,published\n7,"sea, sand",a|b,30,99\n8,,,,\n',
            "interactions.csv": "user_id,illust_id,timestamp,label,username\n"
            f"u,7,{START},1,U\nv,8,{START + 1},0,\n",
        },
    )
    for stem, rows in (("items", records), ("interactions", log)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / f"{stem}.parquet")
        lines = "\n".join(map(json.dumps, rows))
        write(tmp_path / "jsonl", {f"{stem}.jsonl": lines})
    seen = []
    for name in ("csv", "parquet", "jsonl"):
        found, _ = items_of(tmp_path / name)
        columns, _, names = log_of(tmp_path / name)
        first = 2 if name == "csv" else 1  # the header is row 1 of a CSV
        assert [item.row for item in found] == columns.pop("row") == [first, first + 1]
        cells = [(i.illust_id, i.title, i.tags, i.width, i.height, i.published) for i in found]
        seen.append((cells, columns, names))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == [
        ("7", "sea, sand", ("a", "b"), 30, -1, 99),
        ("8", "", (), -1, -1, -1),
    ]
    assert seen[0][1]["label"] == [1, 0]
    assert seen[0][2] == ["U", ""]


def test_it_is_a_source_and_names_what_is_missing(tmp_path):
    path = small(tmp_path / "mine")
    assert isinstance(open_source("folder", path), Source)
    with pytest.raises(ValueError, match="--path"):
        open_source("folder")
    with pytest.raises(ValueError, match="got nothing; expected a folder"):
        Folder(tmp_path / "absent")
    os.remove(path / "items.csv")
    with pytest.raises(ValueError, match=r"expected one of items\.parquet, items\.csv"):
        Folder(path)
    write(path, {"items.csv": "illust_id\n1\n", "items.jsonl": '{"illust_id": 1}'})
    with pytest.raises(ValueError, match=r"items\.csv and items\.jsonl; expected one"):
        Folder(path)


@pytest.mark.parametrize("name", ["items.csv", "items.jsonl", "items.parquet"])
def test_empty_and_broken_files_are_named(tmp_path, name):
    path = write(tmp_path, {name: b"", "interactions.csv": LOG})
    with pytest.raises(ValueError, match=f"{name}: got an empty file"):
        items_of(path)
    write(tmp_path, {name: b"\xff\xfei\0l\0l\0u\0s\0t\0"})
    if name == "items.jsonl":
        assert items_of(path)[1].counts == {"unreadable_row": 1}
    else:
        with pytest.raises(ValueError, match=name):
            items_of(path)


def test_a_header_alone_is_an_empty_table(tmp_path):
    found, report = items_of(folder_of(tmp_path, items_csv="illust_id,title"))
    assert found == []
    assert report.counts == {}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_missing_and_unknown(tmp_path, suffix):
    rows = [{"ilust_id": "1", "titel": "x"}]

    def items(rows):
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "items.parquet")
        elif suffix == "jsonl":
            write(tmp_path, {"items.jsonl": json.dumps(rows[0])})
        else:
            write(tmp_path, {"items.csv": ",".join(rows[0]) + "\n" + ",".join(rows[0].values())})
        write(tmp_path, {"interactions.csv": LOG})
        return items_of(tmp_path)

    with pytest.raises(
        ValueError, match="got the columns ilust_id, titel; expected 'illust_id'"
    ) as error:
        items(rows)
    assert "rename 'ilust_id'" in str(error.value)
    assert f"items.{suffix}" in str(error.value)
    found, report = items([{"illust_id": "1", "titel": "x"}])
    assert len(found) == 1
    assert report.counts == {"unknown_column": 1, "no_image": 1}
    assert report.examples["unknown_column"][0].value == "titel (known: title)"


def test_other_separators_are_named(tmp_path):
    for mark in ";\t|":
        path = folder_of(tmp_path, items_csv=mark.join(["illust_id", "title"]) + "\n")
        with pytest.raises(ValueError, match="separated by commas"):
            items_of(path)


def test_a_column_twice(tmp_path):
    with pytest.raises(ValueError, match="expected 'title' once"):
        items_of(folder_of(tmp_path, items_csv="illust_id,title,title\n1,a,b\n"))


def test_a_later_key_of_json_lines_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 2)
    lines = [{"illust_id": 1}, {"illust_id": 2}, {"illust_id": 3, "tags": ["x"], "colour": 1}]
    path = folder_of(tmp_path, items_jsonl="\n\n".join(map(json.dumps, lines)))
    found, report = items_of(path)
    assert [(item.illust_id, item.row, item.tags) for item in found] == [
        ("1", 1, ()), ("2", 3, ()), ("3", 5, ("x",)),
    ]  # fmt: skip
    assert where(report, "unknown_column") == [("items.jsonl", 5)]


# As a whole ---------------------------------------------------------------------------------


def test_request_changes_with_every_file(tmp_path):
    path = small(tmp_path / "mine", items=3)
    requests = [Folder(path).request()]
    os.utime(path / "items.csv", ns=(1, 1))
    assert Folder(path).request() == requests[0]  # tables count by content
    moved = path.rename(tmp_path / "moved")
    assert Folder(moved).request() == requests[0]

    def changed():
        requests.append(Folder(moved).request())
        return all(requests[-1] != earlier for earlier in requests[:-1])

    with open(moved / "items.csv", "a") as file:
        file.write("99,x,y,z\n")
    assert changed()
    with open(moved / "interactions.csv", "a") as file:
        file.write("u,1,1700000000,1\n")
    assert changed()
    write(moved, {"images/new/1.png": picture(1)})
    assert changed()
    os.utime(moved / "images/1.png", ns=(5, 5))
    assert changed()
    os.remove(moved / "images/2.png")
    assert changed()
    os.rename(moved / "images/3.png", moved / "images/4.png")
    assert changed()
    json.dumps(requests)


def test_a_long_log_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(comma_separated, "BLOCK_BYTES", 2**16)
    rows = "".join(f"u{k % 97},{k % 11},{START + k}\n" for k in range(30_000))
    path = folder_of(tmp_path, items_csv="illust_id\n1\n",
                     interactions_csv="user_id,illust_id,timestamp\n" + rows)  # fmt: skip
    pieces = list(Folder(path).interactions(Report()))
    assert len(pieces) > 5
    np.testing.assert_array_equal(np.concatenate([p.row for p in pieces]), np.arange(2, 30_002))
    assert {p.user_id.type for p in pieces} == {pa.dictionary(pa.int32(), pa.string())}
