import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import umair_jax
from umair_jax.data.report import EXAMPLES, KINDS, Report


def printed(report):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table())
    return console.export_text()


def sample():
    report = Report()
    report.read("a.csv", 60)
    report.read("a.csv", 40)
    report.read("b.csv", 10)
    report.add_many("bad_label", "a.csv", np.arange(2, 22), "label", [str(k) for k in range(8)])
    report.add_many("bad_timestamp", "a.csv", np.arange(12, 32), "timestamp", ["x"] * 8)
    report.add("empty_tags", "b.csv", 1, "tags", "")
    report.add("bad_label", "b.csv", 7, "label", "[bold]\x1b\n" + "y" * 100)
    return report


def test_counts_shares_and_examples():
    report = sample()
    assert report.counts == {"bad_label": 21, "bad_timestamp": 20, "empty_tags": 1}
    # A row with two faults is one bad row; a note is none.
    assert report.bad_shares() == {"a.csv": 0.3, "b.csv": 0.1}
    examples = report.examples["bad_label"]
    assert [(e.file, e.row, e.value) for e in examples[:EXAMPLES]] == [
        ("a.csv", k + 2, str(k)) for k in range(EXAMPLES)
    ]
    assert examples[-1].file == "b.csv"  # every file has examples of its own
    assert len(examples[-1].value) == 60
    assert examples[-1].value.startswith("[bold]\ufffd\ufffd")
    text = printed(report)
    assert "[bold]" in text
    assert "30.00% bad" in text
    assert "empty_tags: no tags (note)" in text


def test_a_file_that_is_too_bad_stops_with_its_own_faults():
    report = sample()
    report.check(0.3)
    with pytest.raises(ValueError, match=r"a\.csv: got 30 bad rows of 100 \(30\.0%\)") as error:
        report.check(0.29)
    text = str(error.value)
    assert "20 x bad_label" in text
    assert "e.g. row 12, timestamp = x; write unix seconds (not milliseconds)" in text
    only_b = Report()
    only_b.read("b.csv", 10)
    only_b.add("bad_label", "b.csv", 7, "label", "[bold]")
    with pytest.raises(ValueError, match=r"b\.csv.*\n  1 x bad_label.*row 7, label = \[bold\]"):
        only_b.check(0.05)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        report.check(1.5)


def test_round_trip_through_json():
    report = sample()
    stored = json.loads(json.dumps(report.to_dict()))
    again = Report.from_dict(stored)
    assert again.to_dict() == stored
    assert printed(again) == printed(report)


def test_unknown_kinds_and_nothing():
    report = Report()
    with pytest.raises(KeyError):
        report.add("no_such_kind", "a", 1, "x", "")
    report.add_many("bad_label", "a", np.zeros(0, np.int64), "label", [])
    assert report.counts == {}
    report.check(0.0)


def test_every_kind_is_used_somewhere():
    package = Path(umair_jax.__file__).parent
    code = "".join(p.read_text() for p in package.rglob("*.py") if p.name != "report.py")
    assert [kind for kind in KINDS if not re.search(f'"{kind}"', code)] == []
