import json

import pytest

from benchmarks import input as input_bench
from benchmarks import machine, made_up, ranker, report

ALWAYS = {"bench", "case", "ours", "peer", "ratio", "unit", "versions", "date", "cpu"}
SIZES = made_up.Sizes(
    interactions=300,
    items=50,
    users=20,
    states=30,
    illust_ids=1000,
    user_ids=100,
    vector_share=1 / 32,
)
SMALL = {
    "tower_widths": (8,),
    "modality_width": 8,
    "head_widths": (4,),
    "cross": "vector",
    "cross_layers": 1,
    "meta": False,
}


def test_input_measures_every_peer_and_writes_json_lines(tmp_path, capsys):
    out = tmp_path / "results" / "input.jsonl"
    options = ["--rows=500", "--batch_size=64", "--rounds=1", "--seconds=0.01", f"--out={out}"]
    results = input_bench.main(options)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == results == [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["peer_name"] for row in results] == 2 * list(input_bench.PEERS)
    for row in results:
        assert row.keys() >= ALWAYS
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])


def test_the_input_peers_serve_the_columns():
    columns = input_bench.made_up_columns(200)
    for name, peer in input_bench.PEERS.items():
        batches = peer(columns, None, 50)
        epoch = [next(batches) for _ in range(4)]
        for column, values in columns.items():
            served = sorted(x for batch in epoch for x in batch[column].tolist())
            assert served == sorted(values.tolist()), (name, column)


def test_ranker_measures_ours_and_the_peer(capsys):
    (row,) = ranker.run(SIZES, ["senet"], [128], 1, 0.01, 64, SMALL)
    assert json.loads(capsys.readouterr().out) == row
    assert row.keys() >= ALWAYS | {
        "examples_per_cpu_second",
        "step_ms",
        "flops_per_step",
        "gflops_per_second",
        "matrix_peak_gflops_per_second",
        "share_of_matrix_peak",
        "foreign_cpu_share",
    }
    assert row["peer_name"] == "dense-adam"
    assert row["flops_per_step"] > 0
    assert row["authors_keras"] == 2881
    assert "not measured" in row["authors_keras_is"]


def test_the_table_of_results_is_readable(capsys):
    report.show("Title", [{"a": "x", "b": 1234.5}, {"a": "y"}], {"a": "A", "b": "B"})
    shown = capsys.readouterr().err
    assert "1,23" in shown
    assert "Title" in shown


def test_usage_counts_own_time():
    usage = machine.Usage()
    with usage.round():
        sum(range(100_000))
    assert usage.cpu_seconds > 0
    assert len(usage.seconds) == 1
    assert usage.foreign_share is None or 0 <= usage.foreign_share <= 1
