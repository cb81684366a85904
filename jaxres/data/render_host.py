"""The host renderer: plans to pixels with NumPy and OpenCV, as the study made its pictures."""

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.data.plan import Plan


def render(
    plan: Plan,
    digits: UInt8[np.ndarray, "digits h w"],
    photos: UInt8[np.ndarray, "photos s s 3"],
    *,
    canvas: int,
) -> UInt8[np.ndarray, "n {canvas} {canvas} 3"]:
    """Make the pictures of a plan. Only the digit's square is touched beyond copying the crop."""
    pictures = np.empty((len(plan.digit), canvas, canvas, 3), np.uint8)
    for picture, digit, photo, crop, side, corner, opacity in zip(
        pictures, *(field.tolist() for field in plan), strict=True
    ):
        row, column = crop
        picture[:] = photos[photo, row : row + canvas, column : column + canvas]
        scaled = cv2.resize(digits[digit], (side, side), interpolation=cv2.INTER_CUBIC)
        row, column = corner
        square = picture[row : row + side, column : column + side]
        top = cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(square, 1 - opacity, top, opacity, 0, dst=square)
    return pictures
