"""The host renderer: plans to pixels with NumPy and OpenCV, as the study made its images."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.config import DataConfig
from jaxres.data.augment import LUMA, Augmentation
from jaxres.data.compose.composition import Image, Plan, Resident, row
from jaxres.image.warp_host import jittered, warped


def render(
    plan: Plan, augmentation: Augmentation | None, resident: Resident, *, data: DataConfig
) -> UInt8[np.ndarray, "n side side 3"]:
    """Make the images of a plan."""
    n, side = len(plan[0]), data.image_size
    images = np.empty((n, side, side, 3), np.uint8)
    for k, finished in enumerate(images):
        changes: Augmentation | None = None if augmentation is None else row(augmentation, k)
        places = None
        if changes is not None and changes.jitter is not None and changes.noise is not None:
            places = jittered(changes.jitter, changes.noise, data.canvas)
        image = plan.on_host(k, resident, changes, places, canvas=data.canvas)
        if changes is not None:
            if not plan.moves_itself:
                whole = np.s_[0 : data.canvas, 0 : data.canvas]
                image = warped(image, changes.matrix, places, whole, border="mirror")
            if changes.tone is not None:
                gain, bias = changes.tone
                image = gain * image.astype(np.float32) + bias
            if changes.colour is not None and image.ndim == 3:
                grey = (image.astype(np.float32) @ LUMA)[..., None]
                image = grey + changes.colour * (image - grey)
        if image.dtype != np.uint8:  # once, at the end
            image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        if changes is not None and changes.erase is not None:
            top, left, height, width, grey = changes.erase.tolist()
            image[top : top + height, left : left + width] = grey
        finished[:] = _three_channels(_finished(image, data))
    return images


def _finished(image: Image, data: DataConfig) -> Image:
    if data.resize is not None:
        side = (data.resize, data.resize)
        if image.shape[:2] != side:
            image = cv2.resize(image, side, interpolation=cv2.INTER_CUBIC)
    if data.threshold is not None:
        image = np.where(image >= data.threshold_level, image, 0).astype(np.uint8)
    if data.center:
        image = _centred(image)
    if data.pad is not None:
        margin = data.pad - len(image)
        sides = (margin // 2, margin - margin // 2)
        image = np.pad(image, (sides, sides, *[(0, 0)] * (image.ndim - 2)))
    return image


def _centred(image: Image) -> Image:
    """The box of what is not black moved to the middle; an odd pixel is left after it."""
    marked: Any = image.reshape(*image.shape[:2], -1).any(-1)
    centred = np.zeros_like(image)
    if not marked.any():
        return centred
    size = len(image)
    spans = []
    for axis in (1, 0):
        (places,) = marked.any(axis).nonzero()
        first, after = int(places[0]), int(places[-1]) + 1
        start = first + (size - first - after) // 2
        spans.append((slice(first, after), slice(start, start + after - first)))
    (rows, new_rows), (columns, new_columns) = spans
    centred[new_rows, new_columns] = image[rows, columns]
    return centred


def _three_channels(image: Image) -> UInt8[np.ndarray, "h w *rgb"]:
    return image[..., None] if image.ndim == 2 else image
