"""Independent implementations of the networks, asked in the names and layouts of ours."""

import importlib
from typing import Protocol

import numpy as np

from tests.models.cases import Case
from tests.models.drawn import Weights


class Reference(Protocol):
    """A network of someone else's, computing in float64."""

    def logits(self, weights: Weights, images: np.ndarray) -> np.ndarray:
        """In evaluation."""
        ...

    def gradients(self, weights: Weights, images: np.ndarray) -> Weights:
        """In training, of the mean cross-entropy, with the batch's own statistics."""
        ...


def reference(case: Case) -> Reference:
    """The implementation that the case names; it needs torch, torchvision or keras."""
    return importlib.import_module(f"{__name__}.{case.source}").reference(case)
