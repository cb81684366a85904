"""Noise that NumPy and JAX compute alike: a hash of numbers, bit for bit."""

from typing import Any

import numpy as np

GOLDEN = np.uint32(0x9E3779B9)  # 2**32 over the golden ratio: spreads consecutive numbers


def hashed(numbers: Any) -> Any:
    """Well mixed uint32 of uint32, NumPy's or JAX's: `lowbias32` of Wellons 2018."""
    numbers = numbers ^ (numbers >> 16)
    numbers = numbers * np.uint32(0x7FEB352D)
    numbers = numbers ^ (numbers >> 15)
    numbers = numbers * np.uint32(0x846CA68B)
    return numbers ^ (numbers >> 16)


def pixel_noise(row: Any, column: Any, seed: Any, *, axis: int) -> Any:
    """Numbers in [-1, 1) for pixels, whose rows and columns are uint32 below 2**15.

    Differs from `seed` (uint32) to seed and between `axis` 0 and 1. The result is float32.
    """
    number = (row << 16) + column * 2 + axis
    mixed = hashed(number * GOLDEN + seed) >> 8
    return mixed.astype("float32") * 2.0**-23 - 1
