"""Losses by example."""

from typing import Any

import chex
import jax
import optax
from jaxtyping import Array, Bool, Float, Int32, UInt8

from jaxres.ops import target


def cross_entropy(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"], *, smoothing: float = 0.0
) -> Float[Array, " n"]:
    """Per-example cross-entropy against labels smoothed as by Szegedy et al. 2016, section 7.

    On a GPU never by index, whose gradient is a scatter: additions in no fixed order.
    """
    _require_rows(logits, labels)
    if smoothing == 0.0 and target.backend() != "gpu":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return optax.softmax_cross_entropy(logits, _smoothed(labels, logits.shape[-1], smoothing))


def sigmoid_cross_entropy(
    logits: Float[Array, "n classes"],
    labels: Int32[Array, " n"] | UInt8[Array, "n classes"],
    *,
    smoothing: float = 0.0,
) -> Float[Array, " n"]:
    """One yes-or-no question per class: binary cross-entropies, summed over the classes.

    As Beyer et al. 2020, "Are we done with ImageNet?", section 5. Labels that are 0 or 1 for each
    class are smoothed towards a half.
    """
    if is_multi_label(labels):
        chex.assert_equal_shape([logits, labels])
        targets = labels * (1 - smoothing) + smoothing / 2
    else:
        _require_rows(logits, labels)
        targets = _smoothed(labels, logits.shape[-1], smoothing)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1)


def is_multi_label(labels: Any) -> bool:
    """Whether labels say 0 or 1 for each class, rather than which class it is."""
    return labels.ndim == 2


def evaluation_loss(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"] | UInt8[Array, "n classes"]
) -> Float[Array, " n"]:
    """The loss by which networks are compared: cross-entropy, of multi-label data by sigmoids."""
    loss = sigmoid_cross_entropy if is_multi_label(labels) else cross_entropy
    return loss(logits, labels)


def correct(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"] | UInt8[Array, "n classes"]
) -> Bool[Array, "n *classes"]:
    """Whether the highest logit is the label's; of multi-label data, whether each sign is right."""
    if is_multi_label(labels):
        return (logits > 0) == (labels > 0)
    return logits.argmax(-1) == labels


def _require_rows(logits: Array, labels: Array) -> None:
    """Whether there is a label for each row of logits, told while the program is traced."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_equal_shape_prefix([logits, labels], 1)


def _smoothed(
    labels: Int32[Array, " n"], classes: int, smoothing: float
) -> Float[Array, "n classes"]:
    return optax.smooth_labels(jax.nn.one_hot(labels, classes), smoothing)
