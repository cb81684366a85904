"""Resampling of one image by OpenCV, as `warp` does it for many in a step."""

from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float32

from jaxres.image.hashing import pixel_noise

Places = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]  # rows and columns


def jittered(jitter: Any, noise: Any, side: int) -> Places:
    """Where the pixels of an image are looked for: each up to `jitter` pixels off its own place."""
    rows, columns = np.ogrid[:side, :side]
    pixel = (rows.astype(np.uint32), columns.astype(np.uint32))
    row, column = (
        (place + jitter * pixel_noise(*pixel, noise, axis=axis)).astype(np.float32)
        for axis, place in enumerate((rows, columns))
    )
    return row, column


def warped(
    image: np.ndarray,
    matrix: Float32[np.ndarray, "3 3"] | None,
    places: Places | None,
    window: tuple[slice, slice],
    *,
    border: Literal["mirror", "black"],
) -> np.ndarray:
    """What lies at `matrix` times the pixels of a window (rows, columns), before rounding.

    `places` are those of `jittered`.
    """
    if matrix is None and places is None:
        return image
    beyond = cv2.BORDER_REFLECT_101 if border == "mirror" else cv2.BORDER_CONSTANT
    matrix = np.eye(3, dtype=np.float32) if matrix is None else matrix
    values = image.astype(np.float32)
    if places is None:
        rows, columns = window
        size = (columns.stop - columns.start, rows.stop - rows.start)
        shift = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]], np.float64)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(values, matrix @ shift, size, flags=how, borderMode=beyond)
    row, column = (each[window] for each in places)
    x, y, w = (m[0] * column + m[1] * row + m[2] for m in matrix)
    return cv2.remap(values, x / w, y / w, cv2.INTER_LINEAR, borderMode=beyond)
