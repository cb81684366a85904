"""Grey textures made by rule: the backgrounds of the modified MNIST images.

The contest's backgrounds are crops of a handful of images: ring gradients, a starfield, scratched
metal or concrete, gravel, granular speckle, dark water, contour lines. The textures here are drawn
widely around them, so that a network does not learn the images themselves.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import UInt8

from jaxres.config import Split
from jaxres.data.backgrounds import texture_kinds
from jaxres.data.backgrounds.noise import Draws
from jaxres.data.datasets.splits import SPLITS
from jaxres.runtime.errors import InputError, unknown_name

# With three white digits on each, 256 images of this mixture have, by seed, a mean of 96 to 102
# (the contest's images 98), a standard deviation of 59 to 60 (62), 1.6 to 2.0 % of their pixels
# in 201..254 (1.6 %) and background means from 18-23 to 164-171 (19 to 172).
CONTEST_MIX = {
    "rings": 0.22,
    "starfield": 0.18,
    "gravel": 0.20,
    "scratches": 0.14,
    "ripples": 0.10,
    "speckle": 0.08,
    "contours": 0.05,
    "noise": 0.03,
}


def texture_bank(
    weights: Mapping[str, float], *, split: Split, seed: int, side: int, count: int
) -> UInt8[np.ndarray, "count side side"]:
    """`count` textures. Texture i is a function of (weights, split, seed, side, i) alone.

    256 textures of side 256 take 2 to 3 s on one core.

    Args:
        weights: How likely each kind (a key of `TEXTURES`) is, in proportion to the others.
        split: Textures of train, validation and test never mix.
        seed: 0 or more.
        side: In pixels, 8 or more; the grain of a texture stays the same at every side.
        count: A longer bank starts with the textures of a shorter one.
    """
    kinds, bounds = _cumulative(weights)
    bank = np.empty((count, side, side), np.uint8)
    for index in range(count):
        # The top bit keeps these words apart from those of the plans.
        draws = Draws(np.array([seed, 1 << 63 | SPLITS.index(split) << 32 | index], np.uint64))
        kind = kinds[int(np.searchsorted(bounds, draws.uniform(0, 1), side="right"))]
        bank[index] = np.rint(np.clip(TEXTURES[kind](draws, side), 0, 255))
    return bank


def _cumulative(weights: Mapping[str, float]) -> tuple[list[str], np.ndarray]:
    """The kinds of positive weight, in order of name, and their cumulative shares up to 1."""
    for kind, weight in weights.items():
        if kind not in TEXTURES:
            raise unknown_name("texture", kind, TEXTURES)
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"the weight of texture '{kind}' is {weight}; allowed: 0 or more")
    kinds = sorted(kind for kind, weight in weights.items() if weight > 0)
    if not kinds:
        raise InputError(f"the texture weights are {dict(weights)}; allowed: at least one above 0")
    bounds = np.cumsum([weights[kind] for kind in kinds])
    return kinds, bounds / bounds[-1]


TEXTURES: dict[str, Callable[[Draws, int], texture_kinds.Image]] = {
    "rings": texture_kinds.rings,
    "starfield": texture_kinds.starfield,
    "speckle": texture_kinds.speckle,
    "gravel": texture_kinds.gravel,
    "scratches": texture_kinds.scratches,
    "ripples": texture_kinds.ripples,
    "contours": texture_kinds.contours,
    "noise": texture_kinds.noise,
}
