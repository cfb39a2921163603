import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folders import START, picture, png_header, small, write
from rich.console import Console

from umair_jax.data import records, store
from umair_jax.data.report import DATA_SET_KINDS, Report
from umair_jax.data.simulate import SimulationConfig
from umair_jax.data.sources import open_source
from umair_jax.data.sources.openclipart import OpenClipart
from umair_jax.prepare import prepare

QUICK = SimulationConfig(users=30, impressions=(10, 20))


def quiet(**options):
    return Console(quiet=True, **options)


def run(path, data_dir, **options):
    options.setdefault("console", quiet())
    return prepare(open_source("folder", path), data_dir, **options)


def files(folder):
    return {
        p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in Path(folder).rglob("*")
        if p.is_file()
    }


@pytest.fixture
def mine(tmp_path):
    return small(tmp_path / "mine")


# The built-in catalogue ---------------------------------------------------------------------


def test_openclipart(tmp_path):
    report = prepare(OpenClipart(1, QUICK, limit=50), tmp_path / "data", console=quiet())
    assert set(report.counts) <= {"empty_tags"}
    data = store.load(tmp_path / "data")
    assert (data.name, data.simulated) == ("openclipart", True)
    assert (len(data.items), len(data.users)) == (50, 30)
    assert 300 <= len(data.interactions) <= 600
    assert all(data.image_bytes(row)[8:12] == b"WEBP" for row in range(1, 51))
    log, mixture = data.interactions, data.users.true_mixture
    assert log.true_probability is not None
    assert log.sampled is None
    assert mixture is not None
    np.testing.assert_allclose(mixture[1:].sum(axis=1), 1, atol=1e-5)
    assert (data.items.published[log.item] <= log.timestamp).all()
    assert not data.items.total_view[1:].any()
    described = store.describe(tmp_path / "data")
    assert described["simulated"]
    summary = json.loads((tmp_path / "data/summary.json").read_text())
    assert summary == described["summary"]
    assert summary["interactions"] == len(log)
    assert summary["seconds"] >= 0


def test_the_same_seed_gives_the_same_data(tmp_path):
    prints = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(OpenClipart(seed, QUICK, limit=20), tmp_path / name, console=quiet())
        data = store.load(tmp_path / name)
        prints.append((data.fingerprint, data.catalogue_fingerprint))
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[2][0]
    assert prints[0][1] == prints[2][1]  # vectors of the pictures stay valid


def test_no_path_for_the_built_in_catalogue():
    with pytest.raises(ValueError, match="needs none"):
        open_source("openclipart", "somewhere")
    with pytest.raises(ValueError, match="expected one of openclipart, folder"):
        open_source("pixiv")


# Once, again, anew --------------------------------------------------------------------------


def test_a_second_call_changes_nothing(tmp_path, mine):
    console = Console(file=io.StringIO(), width=200)
    first = run(mine, tmp_path / "data")
    before = files(tmp_path / "data")
    again = run(mine, tmp_path / "data", console=console)
    assert files(tmp_path / "data") == before
    assert again.to_dict() == first.to_dict()
    assert "prepared already" in console.file.getvalue()


@pytest.mark.parametrize(
    "change",
    ["row", "picture", "pixel_limit", "seed", "negatives"],
)
def test_another_input_is_made_anew(tmp_path, mine, change):
    console = Console(file=io.StringIO(), width=200)
    run(mine, tmp_path / "data")
    first = store.load(tmp_path / "data")
    options = {}
    if change == "row":
        with open(mine / "interactions.csv", "a") as file:
            file.write(f"new,1,{START},1\n")
    elif change == "picture":
        write(mine, {"images/1.png": picture(99)})
    else:
        options = {"pixel_limit": {"pixel_limit": 5, "max_bad_share": 1.0}, "seed": {"seed": 5},
                   "negatives": {"negatives": "uniform"}}[change]  # fmt: skip
    run(mine, tmp_path / "data", console=console, **options)
    assert "making it anew" in console.file.getvalue()
    second = store.load(tmp_path / "data")
    assert (first.fingerprint == second.fingerprint) == (change == "seed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "mine"]


def test_a_foreign_folder_is_not_touched(tmp_path, mine):
    place = write(tmp_path / "photos", {"holiday.jpg": b"dear"})
    with pytest.raises(ValueError, match=r"\(holiday\.jpg\).*choose another --data_dir"):
        run(mine, place)
    (tmp_path / "file").write_text("dear")
    with pytest.raises(ValueError, match="choose another --data_dir"):
        run(mine, tmp_path / "file")
    with pytest.raises(ValueError, match="choose another --data_dir"):
        run(mine, tmp_path / "file/below")
    assert files(place).keys() == {Path("holiday.jpg")}
    assert (tmp_path / "file").read_text() == "dear"
    (tmp_path / "empty").mkdir()
    run(mine, tmp_path / "empty")


def test_foreign_files_in_a_data_set_survive(tmp_path, mine):
    run(mine, tmp_path / "data")
    write(tmp_path / "data", {"notes.txt": b"dear"})
    run(mine, tmp_path / "data")  # nothing to do: they may stay
    with open(mine / "interactions.csv", "a") as file:
        file.write(f"new,1,{START},1\n")
    with pytest.raises(ValueError, match=r"other files \(notes\.txt\)"):
        run(mine, tmp_path / "data")
    assert (tmp_path / "data/notes.txt").read_bytes() == b"dear"
    assert store.load(tmp_path / "data")


# Half-way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["write_items", "write_users", "write_interactions"])
@pytest.mark.parametrize("there", [False, True])
def test_an_interrupt_leaves_nothing_half_made(tmp_path, mine, monkeypatch, stage, there):
    run(mine, tmp_path / "whole", seed=1)
    if there:
        run(mine, tmp_path / "data")
    before = files(tmp_path / "data")

    def interrupted(folder, *_):
        assert folder.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, stage, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(mine, tmp_path / "data", seed=1)
    assert files(tmp_path / "data") == before
    # Written items are kept for the same command, beside what is there.
    finished = [] if stage == "write_items" else [f".data.partial-{os.getpid()}"]
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [*finished, *["data"] * there, "mine", "whole"]
    with monkeypatch.context() as patch:
        if finished:
            patch.setattr(records, "write_items", interrupted)
        report = run(mine, tmp_path / "data", seed=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "mine", "whole"]
    whole = store.describe(tmp_path / "whole")
    again = store.describe(tmp_path / "data")
    assert whole is not None
    assert again is not None
    for kept in ("fingerprint", "catalogue_fingerprint", "request", "report"):
        assert again[kept] == whole[kept]
    assert report.to_dict() == whole["report"]
    assert {p for p, _ in files(tmp_path / "data").items() if p.suffix == ".json"} == {
        p for p, _ in files(tmp_path / "whole").items() if p.suffix == ".json"
    }


def test_items_of_another_request_are_not_gone_on_with(tmp_path, mine, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_users", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(mine, tmp_path / "data", seed=1)
    write(mine, {"images/2.png": picture(9)})
    run(mine, tmp_path / "data", seed=1)
    run(mine, tmp_path / "whole", seed=1)
    found = [store.load(tmp_path / name).fingerprint for name in ("data", "whole")]
    assert found[0] == found[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "mine", "whole"]


def test_a_killed_process_leaves_nothing_that_counts(tmp_path, mine):
    code = f"""
import sys, time
from umair_jax.data import records
from umair_jax.data.sources import open_source
from umair_jax.prepare import prepare
def hang(*_):
    print("now", flush=True)
    time.sleep(60)
records.write_interactions = hang
prepare(open_source("folder", {str(mine)!r}), {str(tmp_path / "data")!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists()
    leftovers = [p.name for p in tmp_path.iterdir() if p.name.startswith(".data.partial-")]
    assert len(leftovers) == 1
    (tmp_path / f".data.old-{process.pid}").mkdir()
    running = tmp_path / f".data.partial-{os.getppid()}"
    running.mkdir()  # somebody else's, still at work
    run(mine, tmp_path / "data")
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [running.name, "data", "mine"]
    assert len(store.load(tmp_path / "data").interactions) == 60


# Bad data -----------------------------------------------------------------------------------


def test_bad_rows_are_counted_and_too_many_stop_the_run(tmp_path, mine):
    with open(mine / "interactions.csv", "a") as file:
        file.write(f"u,1,{START}000,1\nu,lost,{START},1\nu,1\n,1,{START},1\nu,1,{START},2\n")
    write(mine, {"images/2.png": b"junk", "images/3.png": png_header(9_000, 9_000)})
    with pytest.raises(ValueError, match=r"items\.csv: got 2 bad rows of 12") as error:
        run(mine, tmp_path / "data")
    assert "broken_image" in str(error.value)
    assert not (tmp_path / "data").exists()
    (mine / "images/2.png").unlink()
    (mine / "images/3.png").unlink()
    with pytest.raises(ValueError, match=r"interactions\.csv: got 5 bad rows"):
        run(mine, tmp_path / "data")
    report = run(mine, tmp_path / "data", max_bad_share=0.2)
    assert report.counts == {
        "no_image": 2, "unreadable_row": 1, "missing_id": 1, "bad_timestamp": 1, "bad_label": 1,
        "unknown_item": 1,
    }  # fmt: skip
    assert len(store.load(tmp_path / "data").interactions) == 60


def test_every_kind_of_problem_can_happen(tmp_path):
    rows = [
        b"illust_id,title,tags,width,height,published,image,colour",
        b"1,a,x,5,5,2024-01-01,1.png,red", b"1,again,x,,,,,", b",no id,x,,,,,",
        b"2,caf\xe9,,,,,broken.png,", b"3,b,x,,,,big.png,", b"4,b,x,,,,absent.png,",
        b"5,b,x,,,,../mine/items.csv,", b"6,b,x,,,,,", b"7,b,x,,,,,",
        b"8,b,x,many,-3,never,,", b"\xff,b,x,,,,,", b"9,too,few",
    ]  # fmt: skip
    log = [
        "user_id,illust_id,timestamp,label",
        *(f"u,{k},{START + k},1" for k in range(1, 9)),
        f"v,1,{START},1", f"v,1,{START},0", f"v,1,{START},1", f"v,lost,{START},1",
        "v,1,yesterday,1", f"v,1,{START},2",
    ]  # fmt: skip
    mine = write(
        tmp_path / "mine",
        {
            "items.csv": b"\n".join(rows), "interactions.csv": "\n".join(log),
            "images/1.png": picture(), "images/broken.png": b"x", "images/6.png": picture(),
            "images/big.png": png_header(9_000, 9_000), "images/6.jpg": picture(),
        },
    )  # fmt: skip
    report = run(mine, tmp_path / "data", max_bad_share=1.0, negatives="uniform")
    assert set(report.counts) == set(DATA_SET_KINDS)
    assert Report.from_dict(store.describe(tmp_path / "data")["report"]).counts == report.counts


def test_a_link_to_a_folder_is_followed(tmp_path, mine):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    for seed in (0, 1):
        run(mine, tmp_path / "data", seed=seed)
    assert (tmp_path / "data").is_symlink()
    assert len(store.load(tmp_path / "disk").items) == 12


def test_a_log_in_milliseconds_says_so(tmp_path, mine):
    rows = "".join(f"u,{k},{START + k}000,1\n" for k in range(1, 13))
    write(mine, {"interactions.csv": "user_id,illust_id,timestamp,label\n" + rows})
    with pytest.raises(ValueError, match="not milliseconds"):
        run(mine, tmp_path / "data")


def test_nothing_usable(tmp_path, mine):
    write(mine, {"interactions.csv": "user_id,illust_id,timestamp\n"})
    with pytest.raises(ValueError, match="no usable interaction"):
        run(mine, tmp_path / "data")
    write(mine, {"items.csv": "illust_id\n"})
    with pytest.raises(ValueError, match="no usable item"):
        run(mine, tmp_path / "data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": "some"}, "expected one of auto, none, uniform, popularity"),
        ({"max_bad_share": 2.0}, "expected 0 to 1"),
        ({"negatives_per_positive": 0}, "expected 1 or more"),
        ({"pixel_limit": 0}, "expected 1 or more pixels"),
    ],
)
def test_wrong_options(tmp_path, mine, options, message):
    with pytest.raises(ValueError, match=message):
        run(mine, tmp_path / "data", **options)
    assert not (tmp_path / "data").exists()


# Negatives ----------------------------------------------------------------------------------


def test_a_log_of_bookmarks_gets_negatives(tmp_path):
    mine = small(tmp_path / "mine", items=60, labels=False, images=False)
    logs = {}
    for strategy in ("auto", "none", "uniform", "popularity"):
        run(mine, tmp_path / "data", negatives=strategy, negatives_per_positive=3)
        logs[strategy] = store.load(tmp_path / "data").interactions
    assert logs["none"].sampled is None
    assert (logs["none"].label == 1).all()
    for strategy in ("auto", "uniform", "popularity"):
        log = logs[strategy]
        assert log.sampled is not None
        assert len(log) == 4 * 60
        assert (log.label[log.sampled] == 0).all()
        assert (log.label[~log.sampled] == 1).all()
    np.testing.assert_array_equal(logs["auto"].item, logs["uniform"].item)
    assert not np.array_equal(logs["popularity"].item, logs["uniform"].item)


def test_a_log_with_zeros_gets_none_unless_asked_for(tmp_path, mine):
    run(mine, tmp_path / "data")
    assert store.load(tmp_path / "data").interactions.sampled is None
    report = run(mine, tmp_path / "data", negatives="uniform", negatives_per_positive=12)
    log = store.load(tmp_path / "data").interactions
    assert log.sampled is not None
    assert (log.label[~log.sampled] == 0).sum() == 30
    # Twelve items are too few for twelve negatives each.
    assert report.counts["no_negative_left"] == 12 * 30 - log.sampled.sum()


def test_a_log_that_would_be_bookmarks_alone_is_refused(tmp_path):
    mine = small(tmp_path / "mine", labels=False)
    head, *lines = (mine / "items.csv").read_text("utf-8").splitlines()
    late = [f"{head},published", *(f"{line},2090-01-01" for line in lines)]
    (mine / "items.csv").write_text("\n".join(late) + "\n", "utf-8")
    with pytest.raises(ValueError, match="no item that could be sampled as a negative"):
        run(mine, tmp_path / "data")


# The front door -----------------------------------------------------------------------------


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "umair_jax.prepare", *map(str, arguments)],
        capture_output=True, text=True,
    )  # fmt: skip


def test_the_command(tmp_path, mine):
    result = command("--source=folder", f"--path={mine}", f"--data_dir={tmp_path / 'data'}")
    assert result.returncode == 0, result.stderr
    assert "folder: 12 items (12 with a picture), 5 users, 60 interactions, 50.0%" in result.stdout
    result = command("--source=folder", f"--path={tmp_path / 'no'}", "--data_dir=x")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    result = command("--source=folder", f"--path={mine}")
    assert result.stderr == "error: --data_dir: got nothing, expected the folder to write.\n"


def test_importing_it_defines_no_flags():
    code = (
        "import umair_jax.prepare; from absl import flags; "
        "print([n for n in flags.FLAGS if n in ('data_dir', 'source', 'seed', 'path')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
