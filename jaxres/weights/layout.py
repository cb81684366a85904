"""How another library names and lays out a network's weights."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Triple = tuple[float, float, float]


class Inputs(NamedTuple):
    """What weights expect of red, green and blue over 255: (values - mean) / std."""

    mean: Triple
    std: Triple


class Layout(NamedTuple):
    """`theirs` gives their name for ours, `translate(ours, array)` their array as ours is.

    `inputs` are what the published weights expect.
    """

    theirs: Callable[[str], str]
    translate: Callable[[str, np.ndarray], np.ndarray]
    inputs: Inputs
