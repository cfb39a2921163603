import json

import pytest

from umair_jax.training.ledger import Ledger


def test_windows_are_weighted_means():
    ledger = Ledger()
    ledger.add(1, {"loss": (2.0, 4.0), "rare": (0.0, 0.0)})
    ledger.add(2, {"loss": (7.0, 2.0), "rare": (3.0, 1.0)})
    assert ledger.close_window() == ledger.train == {"loss": 1.5, "rare": 3.0}
    # A metric without any weight is left out; an empty window changes no report.
    ledger.add(3, {"loss": (1.0, 1.0), "rare": (0.0, 0.0)})
    assert ledger.close_window() == {"loss": 1.0}
    assert ledger.close_window() == {}
    assert ledger.train == {"loss": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named(value):
    ledger = Ledger()
    with pytest.raises(FloatingPointError, match=r"'loss' became .* in update 7.*batch 6"):
        ledger.add(7, {"grad_norm": (1.0, 1.0), "loss": (value, 1.0)})
    with pytest.raises(FloatingPointError, match="'n'"):
        ledger.add(7, {"n": (1.0, value)})


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", [0.5, 0.7, 0.7, 0.6, 0.8], [True, True, False, False, True]),
        ("min", [0.5, 0.7, 0.5, 0.4], [True, False, False, True]),
        ("max", [float("nan"), 0.1, float("nan"), 0.2], [False, True, False, True]),
        ("max", [-3.0, 0.0, -1.0], [True, True, False]),
    ],
)
def test_the_best(mode, values, best):
    ledger = Ledger()
    found = [
        ledger.evaluated(step, {"valid": {"auc": v}, "other": {"auc": 1.0}}, "valid/auc", mode)
        for step, v in enumerate(values)
    ]
    assert found == best
    last = max(i for i, is_best in enumerate(best) if is_best)
    assert ledger.best_step == last
    assert ledger.best_value == values[last]
    assert ledger.evals_since_best == len(values) - 1 - last
    assert ledger.evaluated_step == len(values) - 1


def test_without_a_metric_nothing_is_best():
    ledger = Ledger()
    assert not ledger.evaluated(5, {"valid": {"auc": 0.5}}, "", "max")
    assert (ledger.best_step, ledger.evals_since_best, ledger.evaluated_step) == (-1, 0, 5)
    with pytest.raises(ValueError, match="'valid/acu' is not evaluated; there are: valid/auc"):
        ledger.evaluated(5, {"valid": {"auc": 0.5}}, "valid/acu", "max")


def test_through_json_and_on():
    ledger = Ledger(spent={"seconds": 0.1})
    ledger.add(3, {"loss": (0.1, 3.0)})
    ledger.evaluated(3, {"valid": {"auc": float("nan"), "gauc": 1 / 3}}, "valid/gauc", "max")
    record = json.loads(json.dumps(ledger.to_json(), allow_nan=False))
    again = Ledger.from_json(record | {"from_a_later_version": 1})
    assert again == ledger
    assert again.evals["valid"] == {"auc": None, "gauc": 1 / 3}
    # The copy is one: what was handed to a background save does not change any more.
    before = ledger.to_json()
    ledger.add(4, {"loss": (1.0, 1.0)})
    assert before["window"] == {"loss": [0.1, 3.0]}
