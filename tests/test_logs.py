import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from umair_jax.training import logs
from umair_jax.training.logs import LogConfig, MetricsWriter


def write(workdir, first, steps, evaluated=True, final=True):
    """One part of a run: training every step, an evaluation every second, final results."""
    writer = MetricsWriter(workdir, first, tensorboard=True, active=True, evaluated=evaluated)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step})
        if step % 2 == 0:
            writer.write(step, "valid", {"auc": step / 100})
    if final:
        writer.write(steps[-1], "final/test", {"auc": 0.5})
    writer.close()
    writer.close()


def events(workdir):
    accumulator = EventAccumulator(
        str(workdir / logs.TENSORBOARD_DIR), size_guidance={"scalars": 0}
    )
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def steps(workdir, kind):
    return [line["step"] for line in logs.read(workdir) if line["kind"] == kind]


def test_one_object_a_line(tmp_path):
    write(tmp_path, 0, range(1, 4))
    text = (tmp_path / logs.METRICS_FILE).read_text()
    assert [json.loads(line) for line in text.splitlines()] == logs.read(tmp_path)
    assert logs.read(tmp_path)[0] == {"step": 1, "kind": "train", "loss": 1.0}
    found = events(tmp_path)
    assert set(found) == {"train/loss", "valid/auc", "final/test/auc"}
    assert found["train/loss"] == [(s, pytest.approx(1 / s)) for s in (1, 2, 3)]


def test_numbers_come_back_exactly(tmp_path):
    writer = MetricsWriter(tmp_path, 0, tensorboard=False, active=True)
    writer.write(1, "train", {"x": 0.1 + 0.2, "y": 1e-300})
    writer.close()
    assert logs.read(tmp_path) == [{"step": 1, "kind": "train", "x": 0.1 + 0.2, "y": 1e-300}]
    assert not (tmp_path / logs.TENSORBOARD_DIR).exists()


def test_nan_is_null(tmp_path):
    writer = MetricsWriter(tmp_path, 0, tensorboard=True, active=True)
    writer.write(1, "valid", {"auc": math.nan, "loss": math.inf, "ece": 0.5})
    writer.close()
    text = (tmp_path / logs.METRICS_FILE).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["auc"] is None
    assert logs.read(tmp_path)[0] == {
        "step": 1, "kind": "valid", "auc": None, "loss": None, "ece": 0.5
    }  # fmt: skip
    assert math.isnan(events(tmp_path)["valid/auc"][0][1])


@pytest.mark.parametrize("cut", [1, 4, 5])
def test_a_run_that_goes_on_writes_what_the_unbroken_one_did(cut, tmp_path):
    write(tmp_path / "unbroken", 0, range(1, 9))
    write(tmp_path / "cut", 0, range(1, 7), final=False)
    write(tmp_path / "cut", cut, range(cut + 1, 9))
    assert logs.read(tmp_path / "cut") == logs.read(tmp_path / "unbroken")
    assert events(tmp_path / "cut") == events(tmp_path / "unbroken")


def test_a_run_cut_off_before_its_first_checkpoint(tmp_path):
    write(tmp_path / "unbroken", 0, range(1, 5))
    write(tmp_path / "cut", 0, range(1, 4), final=False)
    write(tmp_path / "cut", 0, range(1, 5))
    assert logs.read(tmp_path / "cut") == logs.read(tmp_path / "unbroken")
    assert events(tmp_path / "cut") == events(tmp_path / "unbroken")


def test_an_evaluation_that_the_checkpoint_does_not_know_is_written_again(tmp_path):
    write(tmp_path, 0, range(1, 5), final=False)
    writer = MetricsWriter(tmp_path, 4, tensorboard=True, active=True, evaluated=False)
    writer.write(4, "valid", {"auc": 0.04})
    writer.close()
    assert steps(tmp_path, "train") == [1, 2, 3, 4]
    assert steps(tmp_path, "valid") == [2, 4]
    assert [step for step, _ in events(tmp_path)["valid/auc"]] == [2, 4]
    assert [step for step, _ in events(tmp_path)["train/loss"]] == [1, 2, 3, 4]


def test_final_results_are_written_anew(tmp_path):
    write(tmp_path, 0, range(1, 5))
    writer = MetricsWriter(tmp_path, 4, tensorboard=False, active=True)
    assert steps(tmp_path, "final/test") == []
    assert steps(tmp_path, "valid") == [2, 4]
    writer.close()


def test_a_line_that_was_cut_off_is_dropped(tmp_path):
    write(tmp_path, 0, range(1, 4), final=False)
    path = tmp_path / logs.METRICS_FILE
    whole = logs.read(tmp_path)
    path.write_text(path.read_text() + '{"step": 3, "kind": "tr')
    assert logs.read(tmp_path) == whole
    write(tmp_path, 3, [4], final=False)
    assert logs.read(tmp_path)[: len(whole)] == whole
    assert steps(tmp_path, "train") == [1, 2, 3, 4]


def test_other_hosts_write_nothing(tmp_path):
    writer = MetricsWriter(tmp_path / "new", 0, tensorboard=True, active=False)
    writer.write(1, "train", {"loss": 1.0})
    writer.flush()
    writer.close()
    assert not (tmp_path / "new").exists()
    assert logs.read(tmp_path / "new") == []


def test_a_line_is_on_disk_once_written(tmp_path):
    writer = MetricsWriter(tmp_path, 0, tensorboard=False, active=True)
    writer.write(1, "train", {"loss": 1.0})
    assert steps(tmp_path, "train") == [1]
    writer.close()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="0 <= start <= stop, got 5 to 3"):
        LogConfig(profile_start_step=5, profile_stop_step=3)
