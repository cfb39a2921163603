"""Charts of a run: exactly what was logged, counted and found."""

import json
import re

import numpy as np
import pytest
import small_world
from pages import Page, made_up_lines

from umair_jax.reporting import axes, cards, charts, measured, numbers, similar
from umair_jax.training import logs, metrics

MODALITIES = ("meta", "content", "style", "text")


# Curves and calibration -------------------------------------------------------------------------


def test_curves_are_the_logged_points(tmp_path):
    lines = list(made_up_lines(MODALITIES))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / logs.METRICS_FILE).write_text(text)
    found = measured.curves(logs.read(tmp_path))
    assert [curve.name for curve in found["weights"]] == list(MODALITIES)
    kinds = {
        "loss": [("train", "loss"), ("valid", "log_loss")],
        "auc": [("valid", "auc")],
        "weights": [("valid", f"weight_{name}") for name in MODALITIES],
    }
    for chart, keys in kinds.items():
        for curve, (kind, metric) in zip(found[chart], keys, strict=True):
            logged = [(line["step"], line[metric]) for line in lines if line["kind"] == kind]
            assert list(zip(curve.step, curve.value, strict=True)) == logged
            assert len(logged) == (6 if kind == "train" else 2)
    train_loss, valid_loss = found["loss"]
    page = Page(
        charts.over_steps([("first", train_loss), ("second", valid_loss)], 6, "Loss", "", "x")
    )
    one, two = page.all("polyline")
    assert [len(line["points"].split()) for line in (one, two)] == [6, 2]
    assert len(page.all("circle")) == len(page.all("line", "whisker")) == 2
    # Equal steps apart, and lower where the loss is lower.
    points = np.array([pair.split(",") for pair in one["points"].split()], float)
    np.testing.assert_allclose(np.diff(points[:, 0]), np.diff(points[:, 0])[0], atol=0.02)
    np.testing.assert_array_equal(np.argsort(points[:, 1]), np.argsort(-train_loss.value))


def test_points_that_are_no_numbers_are_counted():
    lines = [
        {"step": 1, "kind": "valid", "auc": None},
        {"step": 2, "kind": "valid", "auc": 0.5, "auc_low": 0.4, "auc_high": None},
        {"step": 3, "kind": "train", "loss": 0.1},
    ]
    (auc,) = measured.curves(lines)["auc"]
    assert (auc.step.tolist(), auc.value.tolist(), auc.missing, auc.low) == ([2], [0.5], 1, None)
    text = charts.over_steps([("first", auc)], None, "AUC", "AUC", "x")
    assert "1 logged points are not finite" in text
    assert len(Page(text).all("circle")) == 1
    assert "No points were logged" in charts.over_steps([], None, "AUC", "AUC", "x")


def test_bins_agree_with_numpy_and_with_the_metric():
    rng = np.random.default_rng(0)
    probability = np.append(rng.beta(1, 3, 500), [0.0, 1.0, 1.0]).astype(np.float32)
    label = (rng.random(503) < probability).astype(np.int8)
    found = measured.calibration(label, probability)
    assert found.count.sum() == 503
    exact = probability.astype(np.float64)
    for k, (low, high) in enumerate(zip(found.edges, found.edges[1:], strict=False)):
        last = k == len(found.count) - 1
        inside = (exact >= low) & ((exact < high) | last)
        assert found.count[k] == inside.sum()
        if inside.any():
            assert found.predicted[k] == pytest.approx(exact[inside].mean())
            assert found.observed[k] == pytest.approx(label[inside].mean())
        else:
            assert np.isnan([found.predicted[k], found.observed[k]]).all()
    assert found.error == pytest.approx(metrics.ece(label, probability))
    there = int((found.count > 0).sum())
    page = Page(charts.calibration(found, "x"))
    assert len(page.all("circle")) == len(page.all("rect", "count")) == there
    table = Page(numbers.bins(found))
    assert f"{found.count.max():,}" in table.words
    with pytest.raises(ValueError, match="got 0 labels and 0 probabilities; expected one of each"):
        measured.calibration(label[:0], probability[:0])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.781, 0.826, [0.79, 0.8, 0.81, 0.82]),
     (0, 1500, [0, 500, 1000, 1500]), (-3, 5, [-2, 0, 2, 4])],
)  # fmt: skip
def test_ticks_are_round(low, high, expected):
    assert axes.ticks(low, high) == pytest.approx(expected)


def test_labels_have_the_decimals_they_need():
    assert axes.label(1500, 500) == "1,500"
    assert axes.label(0.8, 0.05) == "0.80"
    assert axes.label(-0.004, 0.002) == "-0.004"
    with pytest.raises(ValueError, match="expected low < high"):
        axes.ticks(1, 1)


# Neighbours -------------------------------------------------------------------------------------


def test_neighbours_are_the_nearest_by_cosine():
    bank = small_world.bank()
    there = np.flatnonzero(bank.has_image)
    found = similar.neighbours(bank, 4, 3)
    assert len(found) == 4
    for one in found:
        assert one.item in there
        for name in ("style", "content"):
            vectors = getattr(bank, name)
            unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
            others = [k for k in there if k != one.item]
            best = sorted(others, key=lambda k: -unit[k] @ unit[one.item])[:3]
            assert list(one.nearest[name]) == best
    assert similar.neighbours(bank, 4, len(there)) == ()


def test_bars_say_what_fits():
    text = cards.bar((0.004, 0.296, 0.7), ("meta", "content", "style"))
    page = Page(text)
    assert page.words == ["30%", "style 70%"]
    assert re.search(r'aria-label="meta 0%, content 30%, style 70%"', text)
    assert Page(cards.bar((0.5, 0.5), ("a", "b"), small=True)).words == []
