"""Broken files are read, with everything counted, or refused by name; seeds are fixed."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import START, folder_of, items_of, log_of, picture, write

from umair_jax.data.report import KINDS
from umair_jax.data.sources import comma_separated

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
