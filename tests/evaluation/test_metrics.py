import numpy as np
from sklearn import metrics as reference

from jaxres.evaluation.metrics import classification_metrics

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
