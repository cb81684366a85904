"""Random numbers and random fields that do not depend on NumPy's distributions.

Everything is made from raw words of Philox4x64-10, as in `words.py`, with integer arithmetic and
elementary operations, so an image made from them does not change with NumPy's version; between
processors a pixel may be rounded to the other neighbour.
"""

import math

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt64


class Draws:
    """The random numbers of one image, in the order in which they are asked for."""

    def __init__(self, key: UInt64[np.ndarray, " 2"]):
        self._philox = np.random.Philox(key=key)

    def uniform(self, low: float | int, high: float | int) -> float:
        """A number in [low, high)."""
        return float(self.uniforms(1, low, high)[0])

    def uniforms(
        self, n: int, low: float | int = 0, high: float | int = 1
    ) -> Float64[np.ndarray, " n"]:
        """Numbers in [low, high), of 53 random bits each."""
        bits = self._philox.random_raw(n) >> np.uint64(11)
        return low + (high - low) * (bits * 2.0**-53)

    def log_uniform(self, low: float | int, high: float | int) -> float:
        """A number in [low, high) whose logarithm is uniform."""
        return low * math.exp(self.uniform(0, math.log(high / low)))

    def below(self, bound: int) -> int:
        """A whole number in [0, bound)."""
        return int(self.uniform(0, bound))

    def chance(self, share: float | int) -> bool:
        """True in this share of draws."""
        return self.uniform(0, 1) < share

    def angle(self) -> float:
        """A direction in [0, 2 pi)."""
        return self.uniform(0, 2 * math.pi)

    def normals(self, height: int, width: int) -> Float32[np.ndarray, "height width"]:
        """Mean 0, variance 1, bell-shaped within 3.46: the sum of a word's four 16-bit parts."""
        parts = self._philox.random_raw(height * width).view(np.uint16).reshape(-1, 4)
        sums = parts[:, 0].astype(np.float32)
        for column in (1, 2, 3):
            sums += parts[:, column]
        sums -= 2 * 65535  # each part has mean 65535 / 2 and variance 65536**2 / 12
        sums *= math.sqrt(3) / 65536
        return sums.reshape(height, width)


def standard(field: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The field moved and scaled to mean 0 and variance 1."""
    mean, deviation = cv2.meanStdDev(field)
    return (field - np.float32(mean[0, 0])) / np.float32(deviation[0, 0] + 1e-6)


def blur(field: Float32[np.ndarray, "h w"], sigma: float | int) -> Float32[np.ndarray, "h w"]:
    """The field after a Gaussian filter of `sigma` pixels; unchanged below a fifth of a pixel."""
    return field if sigma < 0.2 else cv2.GaussianBlur(field, (0, 0), sigma)


def smooth(
    draws: Draws, height: int, width: int, *, rows: float | int, columns: float | int
) -> Float32[np.ndarray, "height width"]:
    """A smooth random field: normal numbers every `rows` by `columns` pixels, cubic between."""
    coarse = draws.normals(math.ceil(height / rows) + 3, math.ceil(width / columns) + 3)
    # The lattice starts at a random place between its points, else all fields would share it.
    shift = np.array(
        [
            [1 / columns, 0, draws.uniform(1, 2)],
            [0, 1 / rows, draws.uniform(1, 2)],
        ]
    )
    return cv2.warpAffine(
        coarse,
        shift,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def fractal(
    draws: Draws,
    side: int,
    *,
    rows: float | int,
    columns: float | int,
    octaves: int,
    gain: float = 0.5,
) -> Float32[np.ndarray, "side side"]:
    """Smooth fields, each half as coarse and `gain` as strong as the one before; variance 1."""
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        scale = 0.5**octave
        # A lattice finer than the pixels would not be resolved.
        part = smooth(draws, side, side, rows=max(rows * scale, 1), columns=max(columns * scale, 1))
        total += np.float32(gain**octave) * part
    return standard(total)
