import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import START, folder_of, items_of, log_of, where, write

from umair_jax.data.sources import comma_separated


def test_unreadable_rows_keep_the_count(tmp_path):
    path = folder_of(
        tmp_path,
        interactions_csv="user_id,illust_id,timestamp\n"
        f'a,1,{START}\nb,2\n\nc,3,{START},9\n"d",4,{START}\n',
        items_csv="illust_id\n1\n",
    )
    columns, report, _ = log_of(path)
    assert columns["row"] == [2, 6]
    assert columns["user_id"] == ["a", "d"]
    assert where(report, "unreadable_row") == [("interactions.csv", n) for n in (3, 5)]
    assert report.rows == {"interactions.csv": 4}


def test_an_open_quote_costs_one_row(tmp_path):
    log = f'user_id,illust_id,timestamp\na,1,{START}\n"b,2,{START}\nc,3,{START}\n"d",4,{START}\n'
    columns, report, _ = log_of(
        folder_of(tmp_path, items_csv="illust_id\n1\n", interactions_csv=log)
    )
    assert columns["user_id"] == ["a", "c", "d"]
    assert columns["row"] == [2, 4, 5]
    assert where(report, "unreadable_row") == [("interactions.csv", 3)]
    path = folder_of(tmp_path, items_csv='illust_id,title\n1,"a\nb"\n2,"open\n3,c\n4,"d ""e"" f"\n')
    found, report = items_of(path)
    assert [(item.row, item.title) for item in found] == [(2, "a\nb"), (4, "c"), (5, 'd "e" f')]
    assert where(report, "unreadable_row") == [("items.csv", 3)]


@pytest.mark.parametrize("size", [16, 50, 333])
def test_blocks_do_not_change_anything(tmp_path, monkeypatch, size):
    rng = np.random.default_rng(size)
    titles = ["plain", "two\nlines", 'say ""x""', "comma, here", "", "é\r\nü"]
    rows = [f'{k},"{titles[rng.integers(6)]}",a|b' for k in range(150)]
    path = folder_of(tmp_path, items_csv="illust_id,title,tags\r\n" + "\r\n".join(rows))
    expected, _ = items_of(path)
    assert len(expected) == 150
    monkeypatch.setattr(comma_separated, "BLOCK_BYTES", size)
    found, report = items_of(path)
    assert found == expected
    assert set(report.counts) == {"no_image"}


def test_json_lines_that_are_no_records(tmp_path):
    lines = ['{"illust_id": 1}', "[1]", '{"illust_id"', "null", "[" * 100_000, '{"illust_id": 2}']
    found, report = items_of(folder_of(tmp_path, items_jsonl="\n".join(lines)))
    assert [item.row for item in found] == [1, 6]
    assert report.counts["unreadable_row"] == 4


def test_json_values_of_any_kind(tmp_path):
    record = {
        "illust_id": 12, "title": None, "artist": {"name": "x"}, "tags": "a;b", "width": 3.0,
        "height": float("nan"), "total_view": True, "total_bookmarks": "12", "restrict": 1e400,
    }  # fmt: skip
    other = {"illust_id": "13", "tags": ["x|y", None, "", 7], "title": "\ud800"}
    path = folder_of(tmp_path, items_jsonl=json.dumps(record) + "\n" + json.dumps(other))
    (first, second), report = items_of(path)
    assert (first.illust_id, first.title, first.tags) == ("12", "", ("a", "b"))
    assert (first.width, first.height, first.total_view, first.total_bookmarks) == (3, -1, -1, 12)
    assert second.tags == ("x|y", "7")
    assert report.counts["not_a_number"] == 2  # NaN is how a missing number is often written
    assert report.counts["bad_utf8"] == 1


def test_ids(tmp_path):
    path = folder_of(
        tmp_path,
        items_csv=b"illust_id,title\n a ,x\n\xff,y\n,z\nb,caf\xe9\n",
        interactions_csv=b"user_id,illust_id,timestamp\n,a,9\nu,,9\n\xfe,\xff,9\n u , a ,9\n",
    )
    found, report = items_of(path)
    assert [item.illust_id for item in found] == [
        "a",
        "",
        "b",
    ]  # the empty one is prepare's to drop
    assert found[2].title == "caf\ufffd"
    assert where(report, "bad_utf8_id") == [("items.csv", 3)]
    assert where(report, "bad_utf8") == [("items.csv", 5)]
    columns, report, _ = log_of(path)
    assert columns["user_id"] == ["u"]
    assert columns["row"] == [5]
    assert report.counts == {"missing_id": 2, "bad_utf8_id": 2}


def test_an_id_that_is_no_number_is_missing(tmp_path):
    lines = '{"user_id": NaN, "illust_id": "a", "timestamp": 9}\n'
    path = folder_of(tmp_path / "json", items_csv="illust_id\na\n", interactions_jsonl=lines)
    assert log_of(path)[1].counts == {"missing_id": 1}
    path = folder_of(tmp_path / "parquet", items_csv="illust_id\na\n")
    table = pa.table({"user_id": [float("nan"), 7.0], "illust_id": ["a", "a"], "timestamp": [9, 9]})
    (tmp_path / "parquet" / "interactions.csv").unlink(missing_ok=True)
    pq.write_table(table, tmp_path / "parquet" / "interactions.parquet")
    columns, report, _ = log_of(path)
    assert (columns["user_id"], report.counts) == (["7"], {"missing_id": 1})


def test_float_ids_are_whole_numbers(tmp_path):
    pq.write_table(pa.table({"illust_id": [1.0, 2.0]}), tmp_path / "items.parquet")
    assert [item.illust_id for item in items_of(folder_of(tmp_path))[0]] == ["1", "2"]


def test_numbers(tmp_path):
    cells = ["5", "+6", " 7 ", "8.0", "1e3", "", "-1", "-0", "2.5", "NaN", "inf", "x", "1" * 30]
    rows = "".join(f"{k},{cell}\n" for k, cell in enumerate(cells))
    found, report = items_of(folder_of(tmp_path, items_csv="illust_id,width\n" + rows))
    widths = [item.width for item in found]
    assert widths == [5, 6, 7, 8, 1000, -1, -1, 0, -1, -1, -1, -1, -1]
    assert report.counts["not_a_number"] == 5
    assert where(report, "negative_number") == [("items.csv", 8)]


GOOD_TIMES = {
    "1700000000": START,
    "1700000000.9": START,
    "2023-11-14T22:13:20": START,
    "2023-11-14 22:13:20": START,
    "2023-11-14T22:13:20.75Z": START,
    "2023-11-15T00:13:20+02:00": START,
    "20231114T221320Z": START,
    "2023-11-14": 1_699_920_000,
    "0": 0,
}
BAD_TIMES = ["", "1700000000000", "-5", "2023-02-30T00:00:00", "2023-13-01", "1969-12-31", "nan",
             "yesterday", "2100-01-01", "0001-01-01T00:00:00+23:00", "9" * 40]  # fmt: skip


def test_times(tmp_path):
    cells = [*GOOD_TIMES, *BAD_TIMES]
    rows = "".join(f"u,1,{cell}\n" for cell in cells)
    log = "user_id,illust_id,timestamp\n" + rows
    columns, report, _ = log_of(
        folder_of(tmp_path, items_csv="illust_id\n1\n", interactions_csv=log)
    )
    assert columns["timestamp"] == list(GOOD_TIMES.values())
    assert report.counts == {"bad_timestamp": len(BAD_TIMES)}
    rows = "".join(f"{k},{cell}\n" for k, cell in enumerate(cells))
    found, report = items_of(folder_of(tmp_path, items_csv="illust_id,published\n" + rows))
    assert [item.published for item in found[: len(GOOD_TIMES)]] == list(GOOD_TIMES.values())
    assert {item.published for item in found[len(GOOD_TIMES) :]} == {-1}
    assert report.counts["bad_published"] == len(BAD_TIMES) - 1  # an empty cell is just missing


def test_a_time_does_not_depend_on_its_neighbours(tmp_path):
    texts = [text for text in GOOD_TIMES if "-" in text]
    for text in texts:
        for beside in ("2023-02-30T00:00:00", "1", "x"):
            log = f"user_id,illust_id,timestamp\nu,1,{text}\nv,1,{beside}\n"
            path = folder_of(tmp_path, items_csv="illust_id\n1\n", interactions_csv=log)
            assert log_of(path)[0]["timestamp"][0] == GOOD_TIMES[text]


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_times(tmp_path, unit, zone):
    scale = {"s": 1, "ms": 10**3, "ns": 10**9}[unit]
    times = pa.array([START * scale, None], pa.int64()).cast(pa.timestamp(unit, zone))
    table = pa.table({"user_id": [1, 2], "illust_id": [1, 2], "timestamp": times})
    pq.write_table(table, tmp_path / "interactions.parquet")
    columns, report, _ = log_of(write(tmp_path, {"items.csv": "illust_id\n1\n"}))
    assert columns["timestamp"] == [START]
    assert columns["user_id"] == ["1"]
    assert report.counts == {"bad_timestamp": 1}


def test_labels(tmp_path):
    cells = ["1", "0", "1.0", "0.0", "true", "False", " 1 ", "", "2", "-1", "yes", "nan"]
    log = "user_id,illust_id,timestamp,label\n" + "".join(f"u,1,9,{cell}\n" for cell in cells)
    columns, report, _ = log_of(
        folder_of(tmp_path, items_csv="illust_id\n1\n", interactions_csv=log)
    )
    assert columns["label"] == [1, 0, 1, 0, 1, 0, 1]
    assert report.counts == {"bad_label": 5}
    path = folder_of(tmp_path, items_csv="illust_id\n1\n")
    assert log_of(path)[0]["label"] == [1]  # no such column: every row is a bookmark


def test_tags_have_one_separator(tmp_path):
    cells = ["a|b, c", "a;b,c", '"a, b,,a"', "a", " | ", ""]
    rows = "".join(f"{k},{cell}\n" for k, cell in enumerate(cells))
    path = folder_of(tmp_path, items_csv="illust_id,tags\n" + rows.replace("a|b, c", '"a|b, c"')
                     .replace("a;b,c", '"a;b,c"'))  # fmt: skip
    found, _ = items_of(path)
    assert [item.tags for item in found] == [
        ("a", "b, c"), ("a", "b,c"), ("a", "b", "a"), ("a",), (), (),
    ]  # fmt: skip


def test_parquet_types(tmp_path):
    table = pa.table(
        {
            "illust_id": pa.array(["a", "b"]).dictionary_encode(),
            "title": pa.array([b"x", b"\xff"], pa.binary()),
            "tags": pa.array([["p", None, ""], None], pa.large_list(pa.large_string())),
            "width": pa.array([1, None], pa.int16()),
            "height": pa.array([1.5, float("nan")]),
            "total_view": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "items.parquet")
    found, report = items_of(folder_of(tmp_path))
    assert [(i.illust_id, i.title, i.tags, i.width) for i in found] == [
        ("a", "x", ("p",), 1), ("b", "\ufffd", (), -1),
    ]  # fmt: skip
    assert report.counts == {"bad_utf8": 1, "not_a_number": 1, "no_image": 2}
    pq.write_table(pa.table({"illust_id": [{"a": 1}]}), tmp_path / "items.parquet")
    with pytest.raises(
        ValueError, match=r"items\.parquet: got the column 'illust_id' of type struct"
    ):
        items_of(tmp_path)
