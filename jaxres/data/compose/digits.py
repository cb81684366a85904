"""Where the ink of a source's digits is, for compositions that place and turn them."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt8

from jaxres.runtime.errors import InputError

NATIVE_SIDE = 28  # of a digit's square at scale 1, pixels
INK = 32  # grey levels from which a pixel of the source counts as ink


class Digits(NamedTuple):
    """What `Scatter` knows of the source's digits."""

    labels: Int32[np.ndarray, " digits"]
    by_class: Int32[np.ndarray, " digits"]  # their numbers, class after class
    class_sizes: Int32[np.ndarray, " classes"]
    ink: Float64[np.ndarray, "digits 4"]  # first and last column, first and last row with ink
    side: int  # of the source's images, pixels

    @classmethod
    def of(
        cls, images: UInt8[np.ndarray, "digits s s"], labels: Int32[np.ndarray, " digits"]
    ) -> "Digits":
        """Look through a source.

        Raises:
            InputError: a class has no digit, or an image no ink.
        """
        sizes = np.bincount(labels).astype(np.int32)
        side = images.shape[1]
        marked = images >= INK
        if not sizes.all() or not marked.any((1, 2)).all():
            lacking = "an image without ink" if sizes.all() else f"no example of {sizes.argmin()}"
            raise InputError(f"data.composition scatter_digits: the dataset has {lacking}")
        columns, rows = marked.any(1), marked.any(2)
        ends = [f(axis) for axis in (columns, rows) for f in (_first, _last)]
        order = np.argsort(labels, kind="stable").astype(np.int32)
        return cls(labels, order, sizes, np.stack(ends, 1).astype(np.float64), side)


def patch_side(
    source: Digits, scale: tuple[float, float], *, stretch: float = 1.0, jitter: float = 0.0
) -> int:
    """The side of a square that holds any digit's ink, however it is turned, in pixels.

    Args:
        source: The digits.
        scale: As of `Scatter`.
        stretch: The most by which an augmentation enlarges what lies on the image.
        jitter: The most by which it moves the place of a pixel, in pixels.
    """
    left, right, top, bottom = source.ink.T
    # Interpolation spreads ink by up to a pixel of the source on each side.
    diagonal = np.hypot(right - left + 3, bottom - top + 3).max()
    return (
        math.ceil(diagonal * max(scale) * NATIVE_SIDE / source.side * stretch)
        + 2
        + 2 * math.ceil(jitter)
    )


def _first(marks: Any) -> Int64[np.ndarray, " n"]:
    return marks.argmax(1)


def _last(marks: Any) -> Int64[np.ndarray, " n"]:
    return marks.shape[1] - 1 - marks[:, ::-1].argmax(1)
