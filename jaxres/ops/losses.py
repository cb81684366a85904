"""Losses by example."""

import jax
import optax
from jaxtyping import Array, Float, Int32

from jaxres.ops import target


def cross_entropy(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"], *, smoothing: float = 0.0
) -> Float[Array, " n"]:
    """Per-example cross-entropy against labels smoothed as by Szegedy et al. 2016, section 7.

    On a GPU never by index, whose gradient is a scatter: additions in no fixed order.
    """
    if smoothing == 0.0 and target.backend() != "gpu":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))
