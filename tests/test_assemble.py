import dataclasses
import io

import numpy as np
import pyarrow as pa
import pytest
from folders import picture, png_header
from PIL import Image

from umair_jax.data import assemble
from umair_jax.data.images import decode
from umair_jax.data.log_spool import LogSpool
from umair_jax.data.report import Report
from umair_jax.data.sources import RawInteractions, RawItem, RawUser


def collected(items, **options):
    report = Report()
    catalogue = assemble.Catalogue(report, **options)
    return catalogue, list(catalogue.collect(items)), report


def item(illust_id, row=1, **fields):
    return RawItem("items.csv", row, illust_id, **fields)


def piece(*rows, file="log.csv", first=2, username=None):
    """Rows of (user, item, time, label)."""
    user, illust, time, label = zip(*rows, strict=True)
    return RawInteractions(
        file=file,
        row=np.arange(first, first + len(rows)),
        user_id=pa.array(user),
        illust_id=pa.array(illust).dictionary_encode(),
        timestamp=np.array(time),
        label=np.array(label),
        username=None if username is None else pa.array(username),
    )


def test_ids_are_unique_and_never_empty():
    catalogue, made, report = collected([item("a"), item("", 2), item("b", 3), item("a", 4)])
    assert catalogue.rows == {"a": 1, "b": 2}
    assert len(made) == 2
    assert report.counts == {"missing_id": 1, "duplicate_item": 1, "empty_tags": 2}
    assert report.examples["duplicate_item"][0].row == 4
    columns = catalogue.items()
    assert columns.illust_id == ("", "a", "b")
    assert columns.width.tolist() == [-1, -1, -1]


def test_pictures_are_judged_by_their_header():
    pictures = [picture(1), b"", b"junk", picture(2)[:20], png_header(9_000, 9_000),
                png_header(2**31 - 1, 2**31 - 1), None]  # fmt: skip
    items = [item(str(k), k + 1, image=data, tags=("t",)) for k, data in enumerate(pictures)]
    catalogue, made, report = collected(items)
    assert catalogue.has_image == [True] + [False] * 6
    assert [record["has_image"] for record in made] == catalogue.has_image
    assert report.counts == {"broken_image": 3, "image_too_large": 2}
    assert report.examples["image_too_large"][0].value == "9000 x 9000 (4)"
    assert collected(items, pixel_limit=9_000**2)[2].counts["image_too_large"] == 1
    assert collected(items, pixel_limit=23)[2].counts["image_too_large"] == 3
    with pytest.raises(ValueError, match="expected 1 or more pixels"):
        assemble.Catalogue(Report(), 0)


def test_a_picture_fills_in_missing_sizes_only():
    given = [item("a", image=picture()), item("b", image=picture(), width=100, height=50)]
    columns = collected(given)[0].items()
    assert columns.width.tolist() == [-1, 6, 100]
    assert columns.height.tolist() == [-1, 4, 50]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_that_of_the_picture_as_it_is_shown(form):
    exif = Image.Exif()
    for orientation, size in ((1, (6, 4)), (3, (6, 4)), (6, (4, 6)), (8, (4, 6))):
        exif[0x0112] = orientation
        stored = io.BytesIO()
        Image.new("RGB", (6, 4)).save(stored, form, exif=exif)
        assert assemble.probe(stored.getvalue(), 24) == ("", size)
        with decode(stored.getvalue(), 6) as shown:
            assert shown.size == size


def test_tags_are_kept_once_in_order():
    catalogue, _, report = collected([item("a", tags=("x", "", "y", "x")), item("b", tags=("",))])
    assert catalogue.items().tags == ((), ("x", "y"), ())
    assert report.counts == {"empty_tags": 1}
    table = catalogue.table()
    assert table["tags"].to_pylist() == [["x", "y"], []]
    assert table["has_image"].to_pylist() == [False, False]


def test_the_log_becomes_rows_in_order():
    report, people = Report(), assemble.People([RawUser("known", "K")])
    log = assemble.assemble_log(
        [
            piece(
                ("u", "b", 30, 1), ("v", "a", 10, 0), ("x", "lost", 5, 1), username=["", "V", "X"]
            ),
            piece(("u", "a", 10, 1), ("known", "b", 10, 0), first=5, username=["U", "other"]),
        ],
        {"a": 1, "b": 2},
        people,
        report,
    )
    assert log.timestamp.tolist() == [10, 10, 10, 30]
    users = people.users()
    assert users.user_id == ("", "known", "u", "v")  # x has no row that stays
    assert users.username == ("", "K", "U", "V")
    assert log.user.tolist() == [1, 2, 3, 2]
    assert log.item.tolist() == [2, 1, 1, 2]
    assert log.label.tolist() == [0, 1, 0, 1]
    assert [c.dtype for c in (log.user, log.item, log.timestamp, log.label)] == [
        np.int32, np.int32, np.int64, np.int8,
    ]  # fmt: skip
    assert report.counts == {"unknown_item": 1}
    assert [(e.row, e.value) for e in report.examples["unknown_item"]] == [(4, "lost")]


def test_repetitions_and_contradictions():
    report = Report()
    rows = [("u", "a", 1, 0), ("u", "a", 1, 1), ("u", "a", 1, 0), ("u", "a", 1, 1),
            ("u", "a", 2, 0), ("u", "b", 1, 0), ("u", "b", 1, 0), ("v", "a", 1, 0)]  # fmt: skip
    log = assemble.assemble_log([piece(*rows)], {"a": 1, "b": 2}, assemble.People(()), report)
    found = list(zip(log.user, log.item, log.timestamp, log.label, strict=True))
    assert found == [(1, 1, 1, 1), (1, 2, 1, 0), (2, 1, 1, 0), (1, 1, 2, 0)]
    assert report.counts == {"duplicate_interaction": 3, "contradiction": 1}
    assert report.bad_shares() == {}  # notes only


def test_repetitions_equal_the_obvious_way():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rows = [(f"u{a}", f"i{b}", int(t), int(y)) for a, b, t, y in
                zip(*rng.integers(0, (3, 3, 4, 2), (150, 4)).T, strict=True)]  # fmt: skip
        report = Report()
        people = assemble.People(())
        log = assemble.assemble_log(
            [piece(*rows[:70]), piece(*rows[70:], first=72)],
            {f"i{k}": k + 1 for k in range(3)}, people, report,
        )  # fmt: skip
        best = {}
        for user, illust, time, label in rows:
            key = (user, illust, time)
            best[key] = max(label, best.get(key, 0))
        names = people.users().user_id
        found = {
            (names[u], f"i{i - 1}", t): y
            for u, i, t, y in zip(log.user, log.item, log.timestamp, log.label, strict=True)
        }
        assert found == best
        assert sum(report.counts.values()) == len(rows) - len(best)


@pytest.mark.parametrize("truth", [False, True])
def test_a_log_in_parts_is_the_log_in_one(tmp_path, truth):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rows = [(f"u{a}", f"i{b}", int(t), int(y)) for a, b, t, y in
                zip(*rng.integers(0, (5, 4, 30, 2), (600, 4)).T, strict=True)]  # fmt: skip
        found, reports = [], []
        folder = tmp_path / str(seed)
        folder.mkdir()
        for spool in (LogSpool(), LogSpool(folder, rows_at_once=90, workers=1 + seed % 3)):
            report = Report()
            pieces = [piece(*rows[k : k + 50], first=2 + k) for k in range(0, 600, 50)]
            if truth:
                pieces = [dataclasses.replace(p, true_probability=p.row / 1000) for p in pieces]
            log = assemble.assemble_log(
                pieces, {f"i{k}": k + 1 for k in range(3)}, assemble.People(()), report, spool
            )  # fmt: skip
            found.append(log)
            reports.append(report.to_dict())
        assert isinstance(found[1].user, np.memmap)
        assert {p.name for p in folder.iterdir()} <= {f.name for f in dataclasses.fields(log)}
        for field in dataclasses.fields(log):
            one, parts = (getattr(log, field.name) for log in found)
            if one is None:
                assert parts is None
            else:
                np.testing.assert_array_equal(parts, one, strict=True)
        assert reports[1] == reports[0]
        assert reports[0]["problems"]["contradiction"]["count"] > 0


def test_times_too_far_apart_for_one_key_are_sorted_too():
    rows = [("u", "a", 2**62, 0), ("v", "a", -(2**62), 0), ("u", "a", 2**62, 1), ("w", "a", 0, 1)]
    report = Report()
    log = assemble.assemble_log([piece(*rows)], {"a": 1}, assemble.People(()), report)
    found = list(zip(log.timestamp, log.user, log.label, strict=True))
    assert found == [(-(2**62), 2, 0), (0, 3, 1), (2**62, 1, 1)]
    assert report.counts == {"contradiction": 1}


def test_an_empty_log():
    assert len(assemble.assemble_log([], {}, assemble.People(()), Report())) == 0
    empty = dataclasses.replace(
        piece(("u", "a", 1, 1)),
        row=np.zeros(0, np.int64), user_id=pa.array([], pa.string()),
        illust_id=pa.array([], pa.string()), timestamp=np.zeros(0), label=np.zeros(0),
    )  # fmt: skip
    assert len(assemble.assemble_log([empty], {"a": 1}, assemble.People(()), Report())) == 0


def test_fingerprints_change_with_all_content():
    def of(**changes):
        fields = {"tags": ("t",), "title": "x", "image": picture(1), "width": 5} | changes
        catalogue, _, _ = collected([item("a", **fields)])
        people = assemble.People(())
        rows = [("u", "a", changes.get("time", 1), 1)]
        log = assemble.assemble_log([piece(*rows)], catalogue.rows, people, Report())
        mine = catalogue.fingerprint()
        return mine, assemble.fingerprint(mine, catalogue.items(), people.users(), log)

    first = of()
    assert of() == first
    for change in ({"tags": ("s",)}, {"title": "y"}, {"image": picture(2)}, {"image": None}):
        assert of(**change)[0] != first[0]
        assert of(**change)[1] != first[1]

    catalogue, whole = of(published=7)
    assert catalogue == first[0]  # texts and pictures are the same: vectors stay valid
    assert whole != first[1]
