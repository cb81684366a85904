import numpy as np
import pytest
from sklearn import metrics as reference

from jaxres.evaluation.metrics import (
    calibration_error,
    classification_metrics,
    metrics_of,
    multi_label_metrics,
)

RNG = np.random.default_rng(0)


def test_metrics_are_scikit_learns() -> None:
    labels = RNG.integers(0, 5, 300).astype(np.int32)
    predicted = np.where(RNG.random(300) < 0.6, labels, RNG.integers(0, 4, 300)).astype(np.int32)
    losses = RNG.random(300).astype(np.float32)
    ours = classification_metrics(labels, predicted, losses, list("abcde"))
    theirs = reference.precision_recall_fscore_support(labels, predicted)
    rows = [
        (entry["precision"], entry["recall"], entry["f1"], entry["support"])
        for entry in ours["per_class"]
    ]
    np.testing.assert_allclose(np.array(rows).T, np.array(theirs))
    np.testing.assert_array_equal(ours["confusion"], reference.confusion_matrix(labels, predicted))
    assert ours["accuracy"] == reference.accuracy_score(labels, predicted)
    assert ours["examples"] == 300
    assert ours["loss"] == losses.astype(np.float64).sum() / 300


def test_a_class_never_seen_nor_predicted_scores_zero() -> None:
    labels = np.array([0, 0], np.int32)
    ours = classification_metrics(labels, labels, np.zeros(2, np.float32), ["a", "b"])
    assert ours["per_class"][1] == {
        "class": "b",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }


def test_multi_label_metrics_are_scikit_learns() -> None:
    random = np.random.default_rng(3)
    labels = (random.random((60, 4)) < 0.3).astype(np.uint8)
    labels[:, 3] = 0
    logits = np.round(random.normal(size=(60, 4)), 1).astype(np.float32)  # with ties
    losses = random.random(60).astype(np.float32)
    found = multi_label_metrics(labels, logits, losses, "abcd")
    said = (logits > 0).astype(int)
    for k in range(3):
        row = found["per_class"][k]
        precision, recall, f1, _ = reference.precision_recall_fscore_support(
            labels[:, k], said[:, k], average="binary"
        )
        np.testing.assert_allclose(
            [row["precision"], row["recall"], row["f1"]], [precision, recall, f1]
        )
        np.testing.assert_allclose(
            row["average_precision"], reference.average_precision_score(labels[:, k], logits[:, k])
        )
    mean = np.mean([row["average_precision"] for row in found["per_class"][:3]])
    assert found["mean_average_precision"] == pytest.approx(mean)
    assert found["accuracy"] == pytest.approx((labels == said).mean())
    assert found["per_class"][3]["average_precision"] == 0
    assert found["confusion"][0][1] == (labels[:, 0] & said[:, 1]).sum()


def test_calibration_error_by_hand() -> None:
    # Twice 0.9 sure, right once; ten times 0.55 sure, always right.
    sure, unsure = np.log([0.9, 0.1]), np.log([0.55, 0.45])
    logits = np.array([sure, sure, *[unsure] * 10], np.float32)
    labels = np.array([0, 1, *[0] * 10], np.int32)
    expected = (2 * abs(0.9 - 0.5) + 10 * abs(0.55 - 1.0)) / 12
    assert calibration_error(labels, logits) == pytest.approx(expected, rel=1e-5)


def test_top5_is_told_where_it_was_computed() -> None:
    results = {
        "label": np.array([0, 1], np.int32),
        "predicted": np.array([0, 0], np.int32),
        "loss": np.zeros(2, np.float32),
    }
    assert "top5_accuracy" not in metrics_of(results, "ab")
    results["in_top5"] = np.array([True, False])
    assert metrics_of(results, "ab")["top5_accuracy"] == 0.5
