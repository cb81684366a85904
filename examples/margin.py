"""A metric of your own: how much likelier the first guess is than the second, in logits."""

from collections.abc import Sequence

import numpy as np

import jaxres


@jaxres.register_metric("margin")
def margin(labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str]) -> float:
    """The mean difference of the two highest logits."""
    ordered = np.sort(logits, axis=-1)
    return float((ordered[:, -1] - ordered[:, -2]).mean())
