import json
import os
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import START, picture, png_header, small, write

from umair_jax.data.report import KINDS, Report
from umair_jax.data.sources import Source, comma_separated, open_source, tables
from umair_jax.data.sources.folder import Folder

LOG = "user_id,illust_id,timestamp\nu,1,1700000000\n"


def folder_of(tmp_path, **files):
    """A folder with these tables, keys like items_csv; a plain log where none is given."""
    content = {name.replace("_", "."): text for name, text in files.items()}
    if not any(name.startswith("interactions") for name in content):
        content["interactions.csv"] = LOG
    return write(tmp_path, content)


def items_of(path):
    report = Report()
    return list(Folder(path).items(report)), report


def log_of(path, **chosen):
    report = Report()
    columns = {name: [] for name in ("row", "user_id", "illust_id", "timestamp", "label")}
    names = []
    for piece in Folder(path).interactions(report):
        for name, column in columns.items():
            column.extend(getattr(piece, name).tolist())
        if piece.username is not None:
            names.extend(piece.username.to_pylist())
    return columns, report, names


def where(report, kind):
    return [(e.file, e.row) for e in report.examples.get(kind, [])]


# Formats ------------------------------------------------------------------------------------


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


# Rows and cells -----------------------------------------------------------------------------


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
    assert report.counts["not_a_number"] == 3
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
    assert report.counts == {"bad_utf8": 1, "not_a_number": 2, "no_image": 2}
    pq.write_table(pa.table({"illust_id": [{"a": 1}]}), tmp_path / "items.parquet")
    with pytest.raises(
        ValueError, match=r"items\.parquet: got the column 'illust_id' of type struct"
    ):
        items_of(tmp_path)


# Pictures -----------------------------------------------------------------------------------


def test_pictures_by_id_and_by_name(tmp_path):
    path = folder_of(tmp_path, items_csv="illust_id,image\n1,\n2,deep/x.png\n3,\na.b,\n5,\n")
    write(
        path / "images",
        {"1.PNG": picture(1), "deep/x.png": picture(2), "3.webp": picture(3, "WEBP"),
         "3.png": picture(4), "a.b.jpg": picture(5, "JPEG"), "5.txt": "a note"},
    )  # fmt: skip
    found, report = items_of(path)
    expected = [picture(1), picture(2), picture(4), picture(5, "JPEG"), None]
    assert [item.image for item in found] == expected
    assert report.counts == {"ambiguous_image": 1, "no_image": 1}
    assert report.examples["ambiguous_image"][0].value == "3.png, 3.webp"


def test_pictures_never_leave_their_folder(tmp_path):
    secret = tmp_path / "secret"
    write(secret, {"x.png": picture()})
    path = tmp_path / "mine"
    names = ["../secret.png", str(secret / "x.png"), "../../secret/x.png", "link.png", "dir/x.png"]
    rows = "".join(f"{k},{name}\n" for k, name in enumerate(names))
    path.mkdir()
    folder_of(path, items_csv="illust_id,image\n" + rows + "byid,\n")
    (path / "images").mkdir()
    (path / "images/link.png").symlink_to(secret / "x.png")
    (path / "images/byid.png").symlink_to(secret / "x.png")
    (path / "images/dir").symlink_to(secret)
    found, report = items_of(path)
    assert [item.image for item in found] == [None] * 6
    assert report.counts == {"image_outside": 6}
    # Inside, links and dots are fine; and the folder itself may be a link.
    write(path, {"images/good.png": picture(3)})
    (path / "images/other.png").symlink_to("good.png")
    (path / "images").rename(tmp_path / "elsewhere")
    (path / "images").symlink_to(tmp_path / "elsewhere")
    write(path, {"items.csv": "illust_id,image\n1,other.png\n2,./dir/../good.png\n3,a/../good.png"})
    found, report = items_of(path)
    assert found[0].image == found[2].image == picture(3)


def test_names_that_are_no_pictures(tmp_path):
    names = ["absent.png", "folder", "x" * 5000, "pipe", "loop.png"]
    rows = "".join(f"{k},{name}\n" for k, name in enumerate(names))
    path = folder_of(tmp_path, items_csv="illust_id,image\n" + rows + "9,nul\0.png\n")
    (path / "images/folder").mkdir(parents=True)
    os.mkfifo(path / "images/pipe")  # reading it would wait for ever
    (path / "images/loop.png").symlink_to("loop.png")
    found, report = items_of(path)
    assert [item.image for item in found] == [None] * 6
    assert report.counts == {"image_not_found": 6}


def test_no_folder_of_pictures(tmp_path):
    found, report = items_of(folder_of(tmp_path, items_csv="illust_id,image\n1,\n2,x.png\n"))
    assert [item.image for item in found] == [None, None]
    assert report.counts == {"no_image": 1, "image_not_found": 1}
    assert "no folder images/" in report.examples["image_not_found"][0].value


def test_a_huge_file_is_not_read(tmp_path):
    path = folder_of(tmp_path, items_csv="illust_id\n1\n")
    (path / "images").mkdir()
    with open(path / "images/1.png", "wb") as file:
        file.truncate(300 * 2**20)
    tracemalloc.start()
    found, report = items_of(path)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert report.counts == {"image_too_large": 1}
    assert found[0].image is None


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


# Fuzz ---------------------------------------------------------------------------------------

WORDS = [b"1", b"2", b"u", b",", b",", b'"', b"\n", b"\n", b"\r\n", b"\0", b"\xff", b"|", b";",
         b"1700000000", b"-3", b"nan", b"1e400", b"2023-02-31", b"../x", b"\xed\xa0\x80", b" ",
         b"{", b"}", b"[", b"]", b":", b'"illust_id"', b'"tags"', b"\\ud800", b"null"]  # fmt: skip


def mangled(rng, clean: bytes) -> bytes:
    data = bytearray(clean)
    if clean.startswith(b"PAR1"):  # any shift would only break the footer
        for at in rng.integers(len(data), size=rng.integers(1, 3)):
            data[at] ^= 1 << int(rng.integers(8))
        return bytes(data)
    for _ in range(rng.integers(1, 12)):
        at = int(rng.integers(len(data) + 1))
        kind = rng.integers(4)
        if kind == 0:
            data[at : at + int(rng.integers(1, 9))] = b""
        elif kind == 1:
            data[at:at] = WORDS[rng.integers(len(WORDS))]
        elif kind == 2:
            data[at : at + 1] = rng.bytes(1)
        else:
            data[at:at] = data[: int(rng.integers(60))]
    return bytes(data)


def clean_tables(suffix) -> dict[str, bytes]:
    items = [
        {"illust_id": str(k), "title": f"t {k}", "tags": "a|b", "image": f"{k}.png",
         "width": str(k), "published": "2023-11-14T22:13:20"}
        for k in range(8)
    ]  # fmt: skip
    log = [
        {"user_id": f"u{k % 3}", "illust_id": str(k % 8), "timestamp": str(START + k),
         "label": str(k % 2), "username": "n"}
        for k in range(20)
    ]  # fmt: skip
    tables_of = {}
    for stem, rows in (("items", items), ("interactions", log)):
        if suffix == "jsonl":
            data = "\n".join(map(json.dumps, rows)).encode()
        elif suffix == "csv":
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            data = "\n".join(lines).encode()
        else:
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows), sink)
            data = sink.getvalue().to_pybytes()
        tables_of[f"{stem}.{suffix}"] = data
    return tables_of


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_mangled_files_are_read_or_refused_by_name(tmp_path, monkeypatch, suffix):
    clean = clean_tables(suffix)
    write(tmp_path, {"images/1.png": picture(1)})
    outcomes = {"read": 0, "refused": 0}
    for seed in range(50):
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(comma_separated, "BLOCK_BYTES", int(rng.choice([200, 2**20])))
        files = {name: mangled(rng, data) for name, data in clean.items()}
        if seed % 10 == 0:
            files = {name: rng.bytes(200) for name in clean}
        write(tmp_path, files)
        for stem, run in (("items", items_of), ("interactions", log_of)):
            try:
                report = run(tmp_path)[1]
            except ValueError as error:
                assert f"{stem}.{suffix}" in str(error)  # noqa: PT017 - both outcomes are fine
                outcomes["refused"] += 1
                continue
            outcomes["read"] += 1
            assert set(report.counts) <= set(KINDS)
            shares = report.bad_shares()
            assert all(0 <= share <= 1 for share in shares.values())
    assert outcomes["read"] > 5
    assert outcomes["refused"] > (0 if suffix == "jsonl" else 5)


def test_mangled_cells_of_parquet(tmp_path):
    for seed in range(25):
        rng = np.random.default_rng(seed)

        def column(clean, rng=rng):
            cells = [mangled(rng, clean) if rng.random() < 0.5 else clean for _ in range(20)]
            return pa.array([c if rng.random() < 0.9 else None for c in cells], pa.binary())

        for stem, columns in (
            ("items", {"illust_id": b"1", "title": b"t", "tags": b"a|b", "width": b"5",
                       "published": b"2023-11-14", "image": b"1.png"}),
            ("interactions", {"user_id": b"u", "illust_id": b"1", "timestamp": b"1700000000",
                              "label": b"1"}),
        ):  # fmt: skip
            table = pa.table({name: column(clean) for name, clean in columns.items()})
            pq.write_table(table, tmp_path / f"{stem}.parquet")
        found, report = items_of(tmp_path)
        assert len(found) + report.counts.get("bad_utf8_id", 0) == 20
        columns, report, _ = log_of(tmp_path)
        bad = round(report.bad_shares()["interactions.parquet"] * 20)
        assert len(columns["row"]) + bad == 20


@pytest.mark.parametrize("seed", range(10))
def test_no_row_is_dropped_in_silence(tmp_path, seed):
    rng = np.random.default_rng(seed)
    values = ["1", "u", "", "x", "-1", "1700000000", "17000000000000", "nan", "0"]
    rows = [[values[c] for c in rng.integers(len(values), size=4)] for _ in range(200)]
    lines = [",".join(row[: 3 + (k % 7 > 0)]) for k, row in enumerate(rows)]
    log = "user_id,illust_id,timestamp,label\n" + "\n".join(lines)
    path = folder_of(tmp_path, items_csv="illust_id\n1\n", interactions_csv=log)
    columns, report, _ = log_of(path)
    bad = round(report.bad_shares()["interactions.csv"] * report.rows["interactions.csv"])
    blank = sum(not line.strip(",") for line in lines if line.count(",") == 3)
    assert report.rows["interactions.csv"] + blank == 200
    assert len(columns["row"]) + bad + blank == 200


def test_a_png_that_claims_too_much_is_passed_on(tmp_path):
    # Its header is prepare's to judge: the source hands the bytes over without decoding them.
    bomb = png_header(10**5, 10**5)
    path = folder_of(tmp_path, items_csv="illust_id\n1\n")
    write(path, {"images/1.png": bomb})
    assert items_of(path)[0][0].image == bomb
