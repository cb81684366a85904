"""The host renderer: plans to pixels with NumPy and OpenCV, as the study made its pictures."""

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.data.encoded import Images
from jaxres.data.plan import PlainPlan, Plan, ScaleBlendPlan


def render(
    plan: Plan,
    images: Images,
    photos: UInt8[np.ndarray, "photos s s 3"],
    *,
    canvas: int,
) -> UInt8[np.ndarray, "n {canvas} {canvas} 3"]:
    """Make the pictures of a plan."""
    match plan:
        case ScaleBlendPlan():
            return _scale_blend(plan, np.asarray(images), photos, canvas)
        case PlainPlan():
            return _plain(plan, images, canvas)


def _scale_blend(
    plan: ScaleBlendPlan,
    digits: UInt8[np.ndarray, "digits h w"],
    photos: UInt8[np.ndarray, "photos s s 3"],
    canvas: int,
) -> UInt8[np.ndarray, "n {canvas} {canvas} 3"]:
    """Only the digit's square is touched beyond copying the crop."""
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


def _plain(
    plan: PlainPlan, images: Images, canvas: int
) -> UInt8[np.ndarray, "n {canvas} {canvas} 3"]:
    pictures = np.empty((len(plan.image), canvas, canvas, 3), np.uint8)
    for picture, index in zip(pictures, plan.image.tolist(), strict=True):
        image = images[index]
        if image.ndim == 2:
            resized = cv2.resize(image, (canvas, canvas), interpolation=cv2.INTER_CUBIC)
            cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB, dst=picture)
        else:
            cv2.resize(image, (canvas, canvas), dst=picture, interpolation=cv2.INTER_CUBIC)
    return pictures
