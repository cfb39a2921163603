import json
from typing import ClassVar

import jax
import numpy as np
import pytest

from benchmarks import (
    frameworks,
    limits,
    machine,
    made_up,
    ranker,
    report,
    resnet,
    rounds,
    scaling,
    timm_resnet,
)
from benchmarks import gallery as gallery_bench
from benchmarks import input as input_bench
from benchmarks import prepare as prepare_bench
from benchmarks import tables as tables_bench
from benchmarks import text as text_bench
from tests.sentence_models import GOLDEN
from umair_jax.encoding import text_model
from umair_jax.models.image_encoder import ImageEncoderConfig

pytestmark = pytest.mark.usefixtures("compiled_once")
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


def test_the_gallery_answers_over_http_and_is_measured():
    changes = {f"model.{name}": value for name, value in SMALL.items()}
    row = gallery_bench.run(40, 3, changes | {"eval.batch_size": 64})
    assert row.keys() >= ALWAYS | {"p50_ms", "p95_ms", "p99_ms", "foreign_cpu_share"}
    assert 0 < row["p50_ms"] <= row["p95_ms"] == row["ours"] <= row["p99_ms"]
    asked = gallery_bench.bodies(40, 3)
    assert asked == gallery_bench.bodies(40, 3)
    assert all(1 <= len(body["likes"]) <= 20 and abs(body["balance"]) <= 1 for body in asked)


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


SETTINGS = resnet.Settings(
    image=ImageEncoderConfig(base_width=4, blocks=(1, 2), content_stage=2, image_size=32),
    batch_size=2,
    train_batch_size=2,
    tags=5,
    compiled=False,
    pictures=3,
    rounds=1,
    round_seconds=0.01,
    peak_tflops=0.5,
)


class _NoTorch:
    missing = "torch and timm cannot be imported: not here"

    def __init__(self, *settings):
        pass


def test_resnet_measures_every_part_and_says_that_there_is_no_torch(capsys, monkeypatch):
    monkeypatch.setattr(resnet, "Peers", _NoTorch)
    results = resnet.run(SETTINGS, resnet.PARTS)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == results
    rows = {part: [row for row in results if row["part"] == part] for part in resnet.PARTS}
    assert [len(rows[part]) for part in resnet.PARTS] == [1, 2, 1, 2]
    for row in results:
        assert row.keys() >= ALWAYS | {"foreign_cpu_share", "threads", "device"}
        assert row["torch"] == _NoTorch.missing
        assert row["ours"] > 0
    (inference,), (train,) = rows["inference"], rows["train"]
    assert inference["peer_name"] == "unfolded"
    assert inference["ratio"] == pytest.approx(inference["ours"] / inference["peer"])
    assert train["peer"] is None
    assert train["ratio"] is None
    # Forward, and the gradients of weights and inputs; the first layer needs none for its input.
    assert 2.5 < train["flops_per_image"] / inference["flops_per_image"] < 3.5
    flops = inference["flops_per_image"] * inference["ours"]
    assert inference["mfu"] == pytest.approx(flops / 0.5e12)
    assert all(row["memory_bytes"] > 0 for row in (inference, train))
    assert 0 < rows["style"][1]["style_share_of_flops"] < 1
    folded = rows["style"][0]
    least = folded["style_share_at_peak"] * folded["peer_call_ms"]
    # The upper triangle with its diagonal, one matrix an image; a product and a sum.
    entries, positions = 16 * 17 / 2, (32 // 4) ** 2
    flops = 2 * entries * positions * folded["batch_size"]
    assert flops / least / 1e6 == pytest.approx(folded["matrix_peak_gflops_per_second"])


class _Peers(_NoTorch):
    """Stands in for timm; its torch.compile does not work."""

    missing = ""
    about: ClassVar = {"torch_threads": 1}

    def inference(self, images, channels_last, compiled):
        def run():
            if compiled:
                raise RuntimeError("no compiler")
            return images.sum()

        return run

    train_step = None

    def wait(self, result):
        pass

    def peak_bytes(self, work):
        return 7


def test_resnet_measures_the_peers_that_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(resnet, "Peers", _Peers)
    out = tmp_path / "resnet.jsonl"
    sizes = ["--base_width=4", "--image_size=64", "--batch_size=2", "--depth=50"]
    few = ["--rounds=1", "--round_seconds=0.01"]
    results = resnet.main(["--parts=inference", "--compile", *sizes, *few, f"--out={out}"])
    assert [json.loads(line) for line in out.read_text().splitlines()] == results
    assert [row["peer_name"] for row in results] == [
        "unfolded",
        "timm, channels first",
        "timm, channels last",
    ]
    assert [row["peer_memory_bytes"] for row in results][1:] == [7, 7]
    assert "torch.compile does not run here: RuntimeError: no compiler" in capsys.readouterr().err


@pytest.mark.parity
def test_the_resnet_peers_do_the_same_work():
    pytest.importorskip("torch", reason="torch is in the parity extra")
    pytest.importorskip("timm", reason="timm is in the parity extra")
    peers = timm_resnet.Peers(depth=50, bfloat16=False, tags=5)
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    for channels_last in (False, True):
        features = peers.inference(images, channels_last, compiled=False)()
        assert tuple(features.shape) == (2, 2048)
        labels = np.eye(2, 5, dtype=np.float32)
        step = peers.train_step(images, labels, channels_last, compiled=False)
        first = float(step())
        for _ in range(5):
            last = float(step())
        assert last < first
    assert peers.peak_bytes(step) is None


def test_the_peak_of_a_card_goes_by_its_name():
    assert resnet.stated_peak("NVIDIA H200") == 989
    assert resnet.stated_peak("NVIDIA H100 80GB HBM3") == 989
    assert resnet.stated_peak("NVIDIA H100 PCIe") == 756
    assert resnet.stated_peak("NVIDIA A100-SXM4-80GB") == 312
    assert resnet.stated_peak("NVIDIA RTX A6000") is None
    assert resnet.stated_peak("NVIDIA L40S") is None


def test_contenders_take_turns():
    order = []
    contenders = [
        rounds.Contender(name, lambda name=name: order.append(name), lambda _: None, 3, 0)
        for name in "abc"
    ]
    order.clear()
    rounds.take_turns(contenders, 2)
    assert order == ["a", "b", "c", "b", "c", "a"]
    assert contenders[0].rate == pytest.approx(3 / contenders[0].seconds)
    assert contenders[0].fastest_seconds <= contenders[0].seconds


class _NoLibrary:
    missing = "sentence-transformers cannot be imported: not here"

    def __init__(self, folder, max_tokens):
        self.folder = folder


class _Twin(_NoLibrary):
    """Stands in for sentence-transformers: the model that was written for it, run by ourselves."""

    missing = ""
    about: ClassVar = {"torch_threads": 1}

    def encode(self, texts, batch_size):
        model = text_model.read(self.folder)
        frozen = text_bench.FrozenTextEncoder(model.encoder(), model.words, max_tokens=12)
        return frozen.encode(texts)[0]

    def train_step(self, batches, scale):
        assert {len(first) for first, second in batches} == {2}
        return lambda: None

    def wait(self, result):
        pass


@pytest.mark.parametrize(("peer", "rows"), [(_NoLibrary, [1, 0]), (_Twin, [2, 1])])
def test_text_measures_with_and_without_a_peer(peer, rows, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(text_bench, "SentencePeer", peer)
    sizes = {"texts": 16, "batch_size": 8, "pairs": 2, "max_tokens": 12, "rounds": 1}
    options = [f"--{name}={value}" for name, value in (sizes | {"round_seconds": 0}).items()]
    options += [f"--weights={GOLDEN / 'distilbert'}", f"--out={tmp_path / 'text.jsonl'}"]
    parts = [part for part, count in zip(text_bench.PARTS, rows, strict=True) if count]
    results = text_bench.main([*options, "--parts", *parts])
    written = (tmp_path / "text.jsonl").read_text("utf-8").splitlines()
    assert capsys.readouterr().out.splitlines() == written
    assert [json.loads(line) for line in written] == results
    parts = [row["part"] for row in results]
    assert [parts.count(part) for part in text_bench.PARTS] == rows
    for row in results:
        assert row.keys() >= ALWAYS
        assert row["ours"] > 0
        if peer is _NoLibrary:
            assert row["ratio"] is None
            assert row["torch"] == peer.missing
        else:
            assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
    assert results[0].get("largest_cosine_distance", 0) < 1e-6


def test_an_update_is_measured_by_rows_batch_and_devices(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scaling, "SIZES", SIZES)
    monkeypatch.setattr(scaling, "NETWORK", SMALL)
    monkeypatch.setattr(machine, "free_bytes", lambda: 2.5 * 52 * 1_000_000)
    options = ["--rows", "1e6", "2e6", "--batches", "16", "--devices", "2", "--batch=32"]
    options.append("--rounds=1")
    options += [f"--out={tmp_path / 'scaling.jsonl'}", f"--picture={tmp_path / 'scaling.png'}"]
    results = scaling.main([*options, "--round_seconds=0.01"])
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == results
    assert "2,000,000 rows: needs 0.2 GiB; left out" in said.err
    assert [(r["part"], r["case"]) for r in results] == [
        ("rows", "1,000,000 rows *"), ("batch", "batch 16 *"), ("devices", "devices 2"),
    ]  # fmt: skip
    for row in results:
        assert row.keys() >= {*ALWAYS, "step_ms"} - {"peer", "ratio"}
        assert row["ours"] == pytest.approx(row["batch_size"] / row["step_ms"] * 1e3)
        assert row["against"] == (1 if row["case"].endswith("*") else None)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_the_limits_of_a_card_are_counted_without_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(limits, "SIZES", SIZES)
    monkeypatch.setattr(limits, "NETWORK", SMALL)
    monkeypatch.setattr(limits, "IMAGE", {"base_width": 2, "image_size": 32})
    monkeypatch.setattr(limits.ahead, "devices_of", lambda topology: jax.devices()[:1])
    options = ["--batches", "64", "128", "--images=2", f"--out={tmp_path / 'limits.jsonl'}"]
    results = limits.main(options)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == results
    small, large, _, half, content, style = results
    assert half["gbytes"] != large["gbytes"]
    assert large["gflop"] == pytest.approx(2 * small["gflop"], rel=0.05)
    assert style["gflop"] > content["gflop"] > 0
    assert style["gbytes"] > content["gbytes"] > 0
    for row, things, speed in ((large, 128, 494e12), (content, 2, 2 * 494e12)):
        assert row["memory_ms"] == pytest.approx(row["gbytes"] / 4800 * 1e3)
        assert row["arithmetic_ms"] == pytest.approx(row["gflop"] * 1e9 / speed * 1e3)
        least = max(row["memory_ms"], row["arithmetic_ms"])
        assert row["most"] == pytest.approx(things / least * 1e3)


class _Frameworks:
    """Stands in for both libraries; keeps what it is given."""

    missing, about = "", {"torch_threads": 0}
    batches: ClassVar[list] = []

    def __init__(self, schema, vectors):
        assert {f.name for f in schema.dense()} == set(vectors)

    def step(self, name, batches):
        self.batches.append(batches)
        return lambda: None


def test_rankers_are_compared_with_models_of_their_kind(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(frameworks, "Peers", _Frameworks)
    monkeypatch.setattr(frameworks.made_up, "Sizes", lambda illust_ids: SIZES)
    monkeypatch.setattr(frameworks, "OPTIONS", {"umair_fps": SMALL, "deepfm": {}})
    names = ["FuxiCTR DCNv2, projected", "DeepCTR-Torch DeepFM, concatenated"]
    options = ["--batch_sizes", "32", "--rounds=1", "--round_seconds=0.01"]
    options += [f"--out={tmp_path / 'frameworks.jsonl'}", "--peers", *names]
    results = frameworks.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(results) == 2
    assert [row["peer_name"] for row in results] == names
    assert [row["same_kind"] for row in results] == [None, "deepfm"]
    for row in results:
        assert row.keys() >= ALWAYS
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
        assert (row["same_kind_ratio"] is None) == (row["same_kind"] is None)
    # Both are given the same ids, each within its table, and rows of vectors.
    data = made_up.ranking_data(SIZES)
    for batch in _Frameworks.batches[0]:
        assert {*batch} == {"label", *(f.name for f in data.schema.fields)}
        for field in data.schema.sparse():
            assert 0 <= batch[field.name].min() <= batch[field.name].max() < field.size
        for field in data.schema.dense():
            assert batch[field.name].max() < len(data.context[field.column])


def test_a_peer_that_cannot_be_imported_is_named(monkeypatch, capsys):
    monkeypatch.setattr(_Frameworks, "missing", "torch cannot be imported: no module")
    monkeypatch.setattr(frameworks, "Peers", _Frameworks)
    monkeypatch.setattr(frameworks.made_up, "Sizes", lambda illust_ids: SIZES)
    with pytest.raises(SystemExit):
        frameworks.main([])
    assert "no module; install umair-jax[bench]" in capsys.readouterr().err


def test_preparing_a_made_up_log_is_measured(tmp_path, capfd):
    out = tmp_path / "prepare.jsonl"
    sizes = ["--interactions=2000", "--items=60", "--users=50"]
    results = prepare_bench.main([*sizes, f"--out={out}", f"--root={tmp_path}"])
    (row,) = results
    assert [json.loads(line) for line in out.read_text("utf-8").splitlines()] == results
    assert (row["interactions"], row["items"]) == (2000, 60)
    assert 0.05 < row["peak_gib"] < 4
    assert row["ours"] == pytest.approx(2000 / row["seconds"])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_results_of_parts_that_were_not_measured_stay(tmp_path):
    path = tmp_path / "results" / "a.jsonl"
    report.write([{"part": "a", "ours": 1}, {"part": "b", "ours": 2}], path)
    report.write([{"part": "b", "ours": 3}, {"part": "b", "ours": 4}], path)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["part"], row["ours"]) for row in found] == [("a", 1), ("b", 3), ("b", 4)]
    report.write([{"ours": 5}], path)
    assert path.read_text() == '{"ours": 5}\n'


def test_tables_measures_every_size_that_fits(tmp_path, capsys, monkeypatch):
    out = tmp_path / "tables.jsonl"
    monkeypatch.setattr(machine, "free_bytes", lambda: 3e6)
    options = ["--rows=1e3,1e4,1e6", "--batch=16", "--fields=2", "--width=4", "--rounds=1"]
    results = tables_bench.main([*options, f"--out={out}"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == results == [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["case"] for row in results] == ["1,000 rows", "10,000 rows"]
    for row in results:
        assert row.keys() >= ALWAYS
        assert row["ratio"] == pytest.approx(row["peer"] / row["ours"])
        assert row["step_ratio"] == pytest.approx(row["peer_step"] / row["step"])
        assert row["against_1e6_rows"] is None
        assert 0.2 < row["distinct"] <= 1


def test_ids_of_a_table_follow_the_law_and_stay_inside():
    rows = 1000
    ids = np.concatenate([part.ravel() for part in tables_bench.ids_of(rows, 4096, 4)])
    assert ids.min() >= 0
    assert ids.max() < rows
    counts = np.sort(np.bincount(ids, minlength=rows))[::-1]
    assert (counts > 0).sum() > 0.9 * rows
    # Twice the rank, half as often.
    assert counts[9] / counts[19] == pytest.approx(2**tables_bench.EXPONENT, rel=0.15)


def test_lazy_and_dense_steps_learn_the_same_target():
    ids = tables_bench.ids_of(50, 64, 4)
    ours = tables_bench.Ours(50, 4, ids, tables_bench.TableOptimConfig("sgd"))
    dense = tables_bench.Dense(50, 4, ids)
    for _ in range(300):
        ours.step(), dense.step()
    touched = np.unique(np.concatenate([part.ravel() for part in ids]))
    for table in (ours.table, dense.table):
        assert np.abs(np.asarray(table)[touched] - 1).max() < 0.3
