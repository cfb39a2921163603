import numpy as np
import pytest
from sklearn import metrics as reference

from umair_jax.training import multi_label_metrics as metrics


@pytest.fixture(params=[0, 1, 2])
def case(request):
    rng = np.random.default_rng(request.param)
    label = rng.random((60, 9)) < 0.2
    label[:, 3] = False  # nobody has it
    label[7] = False  # an example without labels
    # Coarse scores: many ties.
    score = np.round(np.clip(0.3 * label + rng.random((60, 9)) * 0.8, 0, 1), 1)
    return label, score


def test_average_precision_and_f1_are_scikit_learns(case):
    label, score = case
    found = metrics.average_precision(label, score)
    assert np.isnan(found[3])
    for i in set(range(9)) - {3}:
        expected = reference.average_precision_score(label[:, i], score[:, i])
        assert found[i] == pytest.approx(expected)
    result = metrics.evaluate(label, score, threshold=0.5)
    predicted = score >= 0.5
    assert result["map"] == pytest.approx(np.nanmean(found))
    assert result["micro_f1"] == pytest.approx(
        reference.f1_score(label, predicted, average="micro")
    )
    met = (predicted | label).any(0)
    assert result["macro_f1"] == pytest.approx(
        reference.f1_score(label[:, met], predicted[:, met], average="macro")
    )
    best = max(reference.f1_score(label.ravel(), score.ravel() >= t) for t in np.unique(score))
    assert result["best_micro_f1"] == pytest.approx(best)


def test_precision_at_k_is_the_mean_over_all_orders_of_the_tied(case):
    label, score = case
    rng = np.random.default_rng(9)
    for k in (1, 3, 20):
        drawn = []
        for _ in range(400):
            order = np.argsort(-(score + 1e-6 * rng.random(score.shape)), axis=1)[:, : min(k, 9)]
            some = label.any(1)
            drawn.append(np.take_along_axis(label, order, 1)[some].mean())
        assert metrics.precision_at_k(label, score, k) == pytest.approx(np.mean(drawn), abs=0.01)


def test_order_of_examples_and_labels_does_not_matter(case):
    label, score = case
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(60), rng.permutation(9)
    moved = metrics.evaluate(label[rows][:, columns], score[rows][:, columns])
    assert moved == pytest.approx(metrics.evaluate(label, score))


def test_the_table_has_a_line_for_each_label():
    label = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    score = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.6, 0.4, 0.3]])
    lines = metrics.table(["a", "b", "c"], np.array([5, 6, 7]), label, score)
    assert lines[0] == {
        "tag": "a",
        "train": 5,
        "examples": 2,
        "average_precision": 1.0,
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
    }
    assert lines[2]["average_precision"] is None
    assert lines[2]["precision"] is None


def test_no_examples_are_an_error():
    with pytest.raises(ValueError, match="not empty"):
        metrics.evaluate(np.zeros((0, 3), bool), np.zeros((0, 3)))
