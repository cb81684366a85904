"""Golden values: a few numbers of what an independent implementation computes."""

import pathlib
from typing import Any

import numpy as np

from tests.models import drawn
from tests.models.cases import ZERO, Case
from tests.models.drawn import Weights

DIGITS = 9
PARAMETERS = 6  # whose gradients are kept, of each network


def path(case: Case) -> pathlib.Path:
    """The file of a case."""
    return pathlib.Path(__file__).with_name("golden") / f"{case}.json"


def values(logits: np.ndarray, gradients: Weights) -> dict[str, Any]:
    """The contents of a case's file."""
    rows = [[_rounded(value) for value in row] for row in logits]
    return {"logits": rows, "gradients": of_gradients(gradients)}


def of_gradients(gradients: Weights) -> dict[str, dict[str, float]]:
    """Of some gradients the norm and the product with a direction drawn by name."""
    names = sorted(name for name, values in gradients.items() if np.linalg.norm(values) > ZERO)
    chosen = [names[place] for place in np.linspace(0, len(names) - 1, PARAMETERS).astype(int)]
    return {
        name: {
            "norm": _rounded(np.linalg.norm(gradients[name])),
            "product": _rounded(np.vdot(gradients[name], _direction(name, gradients[name]))),
        }
        for name in dict.fromkeys(chosen)
    }


def _direction(name: str, gradient: np.ndarray) -> np.ndarray:
    return drawn.draw(f"direction of {name}", gradient.shape)


def _rounded(value: Any) -> float:
    return float(f"{value:.{DIGITS}g}")
