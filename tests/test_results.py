import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from umair_jax import results

LABEL = np.array([1, 0, 0, 1], np.int8)
METRICS = ("auc", "log_loss", "gauc", "ndcg_at_10", "recall_at_10", "ece")


def summary(intervals=True, simulated=True):
    """A summary in which every number is another one."""
    number = iter(np.arange(0.1111, 0.9, 0.0101))
    parts = {}
    for part in ("validation", "test"):
        parts[part] = {name: float(next(number)) for name in METRICS}
        if intervals:
            values = parts[part]
            parts[part] = values | {
                name + end: values[name] + side * (0.01 + k / 1000)
                for k, name in enumerate(METRICS)
                for end, side in (("_low", -1), ("_high", 1))
            }
    found = {
        "source": "openclipart",
        "simulated": simulated,
        **parts,
        "constant": {"auc": 0.5, "log_loss": 0.6543},
        "modality_weights": {"meta": 0.123, "content": 0.234, "style": 0.345, "text": 0.298},
    }
    if simulated:
        found |= {
            "oracle": {"auc": 0.9321, "log_loss": 0.3219},
            "share_of_oracle": {"auc": 0.4567, "log_loss": -0.0789},
        }
    return found


def shown(given, width=80):
    console = Console(file=io.StringIO(), width=width)
    results.show(given, console)
    return console.file.getvalue()


# Numbers ----------------------------------------------------------------------------------------


def test_oracle_by_hand():
    probability = np.array([0.8, 0.4, 0.5, 0.5], np.float32)
    found = results.oracle(LABEL, probability)
    # Of the four pairs, 0.8 is above both zeros; 0.5 is above 0.4 and level with 0.5.
    assert found["auc"] == pytest.approx(3.5 / 4)
    expected = -(math.log(0.8) + math.log(0.6) + 2 * math.log(0.5)) / 4
    assert found["log_loss"] == pytest.approx(expected, rel=1e-6)


def test_the_best_constant_by_hand():
    label = np.array([1, 0, 0, 0], np.int8)
    found = results.best_constant(label)
    assert found == {
        "auc": 0.5,
        "log_loss": pytest.approx(-(math.log(0.25) + 3 * math.log(0.75)) / 4, rel=1e-12),
    }
    for other in (0.2, 0.3):  # and no other constant is better
        assert -(math.log(other) + 3 * math.log(1 - other)) / 4 > found["log_loss"]
    assert results.best_constant(np.ones(3, np.int8))["log_loss"] == pytest.approx(0, abs=1e-6)


def test_shares_by_hand():
    constant, oracle = {"auc": 0.5, "log_loss": 0.6}, {"auc": 0.9, "log_loss": 0.4}
    found = results.shares({"auc": 0.7, "log_loss": 0.45}, constant, oracle)
    assert found == {"auc": pytest.approx(0.5), "log_loss": pytest.approx(0.75)}
    ends = [results.shares(values, constant, oracle) for values in (constant, oracle)]
    assert ends == [{"auc": 0, "log_loss": 0}, {"auc": 1, "log_loss": 1}]
    worse = results.shares({"auc": 0.4, "log_loss": 0.7}, constant, oracle)
    assert worse == {"auc": pytest.approx(-0.25), "log_loss": pytest.approx(-0.5)}


# summary.json -----------------------------------------------------------------------------------


def test_what_is_written_is_read_back(tmp_path):
    assert results.read(tmp_path) == {}
    results.write(tmp_path, summary())
    assert results.read(tmp_path) == summary()
    results.write(tmp_path, {"source": "Füße"})
    assert results.read(tmp_path) == {"source": "Füße"}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_what_is_no_number_becomes_null(tmp_path):
    results.write(
        tmp_path,
        {
            "auc": math.nan,
            "test": {"gauc": math.inf, "steps": 3, "ece": np.float32(0.5)},
            "list": [1.5, -math.inf, (np.float64(2.5), math.nan)],
            "none": None,
            "flag": True,
        },
    )

    def refuse(name):
        raise AssertionError(f"not JSON: {name}")

    text = (tmp_path / results.SUMMARY).read_text("utf-8")
    assert json.loads(text, parse_constant=refuse) == {
        "auc": None,
        "test": {"gauc": None, "steps": 3, "ece": 0.5},
        "list": [1.5, None, [2.5, None]],
        "none": None,
        "flag": True,
    }


# The table --------------------------------------------------------------------------------------


@pytest.mark.parametrize("intervals", [True, False])
@pytest.mark.parametrize("simulated", [True, False])
def test_the_table_has_every_number_at_80_columns(intervals, simulated):
    given = summary(intervals, simulated)
    text = shown(given)
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = [line for line in text.splitlines() if line.startswith("│")]
    rows = {line.split("│")[1].strip(): line for line in lines}
    assert set(rows) == {name.replace("_", " ") for name in METRICS}
    for k, name in enumerate(METRICS):
        row = rows[name.replace("_", " ")]
        for part in ("validation", "test"):
            half = f" ± {0.01 + k / 1000:.3f}" if intervals else ""
            assert f"{given[part][name]:.4f}{half} " in row
        for key in ("constant", "oracle"):
            value = given.get(key, {}).get(name)
            assert value is None or f" {value:.4f} " in row
        share = given.get("share_of_oracle", {}).get(name)
        assert share is None or f" {share:.1%} " in row
    assert ("(simulated bookmarks)" in text) == simulated
    assert ("oracle" in text) == simulated
    weights = " ".join(text.split())
    assert "meta 0.123 content 0.234 style 0.345 text 0.298" in weights


def test_a_model_far_below_the_constant_still_fits():
    given = summary()
    given["share_of_oracle"] = {"auc": -0.234, "log_loss": -1.5}
    assert "-23.4%" in shown(given)
    assert "-150.0%" in shown(given)


def test_a_metric_that_is_not_defined_leaves_its_place_empty(tmp_path):
    given = summary()
    for part in ("validation", "test"):
        given[part] |= {"gauc": math.nan, "gauc_low": math.nan, "gauc_high": math.nan}
    results.write(tmp_path, given)
    for values in (given, results.read(tmp_path)):
        (row,) = [line for line in shown(values).splitlines() if line.startswith("│ gauc")]
        assert not set("0123456789n±") & set(row.removeprefix("│ gauc"))
