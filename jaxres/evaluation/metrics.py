"""Classification metrics from per-example results."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8

from jaxres.checkpoint.progress import SCORE
from jaxres.ops.losses import is_multi_label
from jaxres.runtime.errors import InputError
from jaxres.runtime.own_code import own_code, registering


def metrics_of(results: Mapping[str, np.ndarray], class_names: Sequence[str]) -> dict[str, Any]:
    """The metrics of what an evaluation step gave by example."""
    labels, losses = results["label"], results["loss"]
    if is_multi_label(labels):
        return multi_label_metrics(labels, results["logits"], losses, class_names)
    metrics = classification_metrics(labels, results["predicted"], losses, class_names)
    if "in_top5" in results:
        metrics["top5_accuracy"] = float(results["in_top5"].mean())
    return metrics


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
    correct, support, assigned = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    per_class = [
        _scores(name, correct[k], assigned[k], support[k]) for k, name in enumerate(class_names)
    ]
    return {
        "accuracy": float(correct.sum() / len(labels)),
        "loss": float(losses.astype(np.float64).sum() / len(labels)),
        "examples": len(labels),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def _scores(
    name: str, correct: np.integer, assigned: np.integer, support: np.integer
) -> dict[str, Any]:
    """What is reported of a class."""
    return {
        "class": name,
        "precision": float(correct / max(assigned, 1)),
        "recall": float(correct / max(support, 1)),
        "f1": float(2 * correct / max(assigned + support, 1)),
        "support": int(support),
    }


def multi_label_metrics(
    labels: UInt8[np.ndarray, "n classes"],
    logits: Float[np.ndarray, "n classes"],
    losses: Float[np.ndarray, " n"],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Mean average precision over the classes that occur, and each class by itself.

    `accuracy` is the share of right answers, class by class, where a logit above 0 says yes.
    `confusion` counts an image once for each pair of a class that it has (row) and one that is
    predicted for it (column). The rest is as in `classification_metrics`.
    """
    predicted, actual = logits > 0, labels > 0
    both = (predicted & actual).sum(0)
    support, assigned = actual.sum(0), predicted.sum(0)
    per_class = [
        {
            **_scores(name, both[k], assigned[k], support[k]),
            "average_precision": average_precision(actual[:, k], logits[:, k]),
        }
        for k, name in enumerate(class_names)
    ]
    there = [row["average_precision"] for row in per_class if row["support"]]
    return {
        SCORE: float(np.mean(there)) if there else 0.0,
        "accuracy": float((predicted == actual).mean()),
        "loss": float(losses.astype(np.float64).sum() / len(labels)),
        "examples": len(labels),
        "per_class": per_class,
        "confusion": (actual.T.astype(np.int64) @ predicted).tolist(),
    }


def average_precision(true: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Precision where each positive is found, averaged; 0 where there are no positives."""
    if not true.any():
        return 0.0
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(true, scores))


def calibration_error(
    labels: Int32[np.ndarray, " n"], logits: Float[np.ndarray, "n classes"], bins: int = 15
) -> float:
    """How far confidence is from accuracy, on average over equal ranges of confidence.

    The expected calibration error of Guo et al. 2017, weighted by the examples in a range.
    """
    shifted = np.exp((logits - logits.max(-1, keepdims=True)).astype(np.float64))
    confidence = shifted.max(-1) / shifted.sum(-1)
    right = logits.argmax(-1) == labels
    ranges = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = np.bincount(ranges, confidence - right, minlength=bins)
    return float(np.abs(sums).sum() / len(labels))


# What `jaxres evaluate` reports without a registered metric.
REPORTED = frozenset(
    {
        *("accuracy", "loss", "examples", "per_class", "confusion", SCORE),
        *("top5_accuracy", "calibration_error"),
        *("checkpoint", "split", "dataset", "run_dir", "command", "outputs"),
    }
)

# (labels, logits, class names) -> a number
Metric = Callable[[np.ndarray, np.ndarray, Sequence[str]], float]
_METRICS: dict[str, Metric] = {}


def register_metric(name: str) -> Callable[[Metric], Metric]:
    """Decorator that adds a metric to what `jaxres evaluate` reports, under its name.

    It takes the labels (int32, n, or of multi-label data uint8, n classes), the logits (float32, n
    classes) and the names of the classes, and gives a number.

    Raises:
        ValueError: the name is taken, or is empty.
    """
    if name in REPORTED:
        raise ValueError(f"a metric is registered as '{name}', which 'jaxres evaluate' has")
    return registering("metric", name, _METRICS)


def further_metrics(
    results: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> dict[str, float]:
    """Metrics that need the logits: calibration, of one class per image, and registered ones.

    Raises:
        InputError: a registered one fails, or is not finite.
    """
    labels, logits = results["label"], results["logits"]
    found: dict[str, float] = {}
    if not is_multi_label(labels):
        found["calibration_error"] = calibration_error(labels, logits)
    for name, metric in _METRICS.items():
        with own_code(f"the metric '{name}'"):
            found[name] = float(metric(labels, logits, class_names))
        if not math.isfinite(found[name]):
            raise InputError(f"the metric '{name}' is {found[name]}; allowed: a finite number")
    return found
