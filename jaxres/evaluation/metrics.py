"""Classification metrics from per-example results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int32


def confusion_matrix(
    labels: Int32[np.ndarray, " n"], predicted: Int32[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """Counts of examples by true class (row) and predicted class (column)."""
    counts = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def classification_metrics(
    labels: Int32[np.ndarray, " n"],
    predicted: Int32[np.ndarray, " n"],
    losses: Float[np.ndarray, " n"],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Accuracy, mean loss, per-class precision, recall and F1, and the confusion matrix.

    A precision, recall or F1 whose denominator is zero is 0, as scikit-learn has it. The loss is
    summed in float64 in the order of the examples, so it does not depend on how they were batched.
    """
    confusion = confusion_matrix(labels, predicted, len(class_names))
    hits, support, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_class = [
        {
            "class": name,
            "precision": float(hits[k] / max(guessed[k], 1)),
            "recall": float(hits[k] / max(support[k], 1)),
            "f1": float(2 * hits[k] / max(guessed[k] + support[k], 1)),
            "support": int(support[k]),
        }
        for k, name in enumerate(class_names)
    ]
    return {
        "accuracy": float(hits.sum() / len(labels)),
        "loss": float(losses.astype(np.float64).sum() / len(labels)),
        "examples": len(labels),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }
