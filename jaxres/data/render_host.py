"""The host renderer: plans to pixels with NumPy and OpenCV, as the study made its pictures."""

from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from jaxres.config import DataConfig
from jaxres.data.augment import Augmentation
from jaxres.data.plan import PlainPlan, Plan, Resident, ScaleBlendPlan, ScatterPlan
from jaxres.ops.hashing import pixel_noise

Fields = TypeVar("Fields", bound=tuple)  # of a plan or an augmentation
Places = tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]  # rows and columns
Picture = np.ndarray  # uint8 or float32, "h w" (grey) or "h w 3"


def render(
    plan: Plan, augmentation: Augmentation | None, resident: Resident, *, data: DataConfig
) -> UInt8[np.ndarray, "n side side 3"]:
    """Make the pictures of a plan."""
    n, side = len(plan[0]), data.picture_side
    pictures = np.empty((n, side, side, 3), np.uint8)
    exact = augmentation is not None  # rounded once, at the end
    for k, finished in enumerate(pictures):
        changes = None if augmentation is None else _row(augmentation, k)
        places = _jittered(changes, data.canvas)
        match plan:
            case ScaleBlendPlan():
                picture = _scale_blend(_row(plan, k), resident, data.canvas, exact)
            case PlainPlan():
                picture = _plain(resident.images[int(plan.image[k])], data.canvas, exact)
            case ScatterPlan():
                picture = _scatter(_row(plan, k), changes, places, resident, data.canvas)
        if changes is not None:
            if not isinstance(plan, ScatterPlan):  # whose matrices hold the augmentation's
                whole = np.s_[0 : data.canvas, 0 : data.canvas]
                picture = _warped(picture, changes.matrix, places, whole, border="mirror")
            if changes.tone is not None:
                gain, bias = changes.tone
                picture = gain * picture.astype(np.float32) + bias
        if picture.dtype != np.uint8:
            picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        if changes is not None and changes.erase is not None:
            row, column, height, width, grey = changes.erase.tolist()
            picture[row : row + height, column : column + width] = grey
        finished[:] = _three_channels(_finished(picture, data))
    return pictures


def _row(fields: Fields, k: int) -> Fields:
    """The k-th of each field's rows."""
    make: Any = type(fields)
    return make(*(None if field is None else field[k] for field in fields))


def _scale_blend(plan: ScaleBlendPlan, resident: Resident, canvas: int, exact: bool) -> Picture:
    """Only the digit's square is touched beyond copying the crop."""
    row, column = plan.crop
    picture = resident.photos[plan.photo, row : row + canvas, column : column + canvas].copy()
    digit = resident.images[plan.digit]
    if exact:
        picture, digit = picture.astype(np.float32), digit.astype(np.float32)
    side, opacity = int(plan.side), float(plan.opacity)
    scaled = cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC)
    if exact:
        scaled = np.clip(scaled, 0, 255)
    row, column = plan.corner
    square = picture[row : row + side, column : column + side]
    top = cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB)
    cv2.addWeighted(square, 1 - opacity, top, opacity, 0, dst=square)
    return picture


def _plain(image: UInt8[np.ndarray, "h w *rgb"], canvas: int, exact: bool) -> Picture:
    picture = image.astype(np.float32) if exact else image
    if image.shape[:2] == (canvas, canvas):
        return picture
    resized = cv2.resize(picture, (canvas, canvas), interpolation=cv2.INTER_CUBIC)
    return np.clip(resized, 0, 255) if exact else resized


def _scatter(
    plan: ScatterPlan,
    changes: Augmentation | None,
    places: Places | None,
    resident: Resident,
    canvas: int,
) -> Picture:
    """White digits over their background, before rounding."""
    texture = resident.photos[plan.texture]
    if places is None and (changes is None or changes.matrix is None):
        texture = _square(texture, plan.to_texture, canvas)
    else:
        whole = np.s_[0:canvas, 0:canvas]
        texture = _warped(texture, plan.to_texture, places, whole, border="mirror")
    gain, bias = plan.tone
    darkness = 255 - np.clip(gain * texture.astype(np.float32) + bias, 0, 255)
    patch = len(resident.patch)
    for j in np.flatnonzero(plan.present):
        digit = resident.images[plan.digit[j]]
        top, left = np.clip(plan.corner[j], 0, canvas).tolist()
        bottom, right = np.clip(plan.corner[j] + patch, 0, canvas).tolist()
        ink = plan.ink[j]
        window = np.s_[top:bottom, left:right]
        level = _warped(digit, plan.to_digit[j], places, window, border="black")
        darkness[window] *= 1 - np.clip(ink[0] / 255 * level - ink[1], 0, 1)
    return 255 - darkness


def _square(
    texture: UInt8[np.ndarray, "s s"], matrix: Float32[np.ndarray, "3 3"], canvas: int
) -> UInt8[np.ndarray, "{canvas} {canvas}"]:
    """A crop of a texture by a matrix that only shifts, mirrors and turns by quarters."""
    right, down = (int(sign) for sign in matrix[:2, :2].sum(1))
    ends = matrix[:2, 2] + np.array([[0, 0], [right, down]]) * (canvas - 1)
    column, row = ends.min(0).astype(int)
    square = texture[row : row + canvas, column : column + canvas][::down, ::right]
    return square.T if matrix[0, 0] == 0 else square


def _jittered(changes: Augmentation | None, canvas: int) -> Places | None:
    """Where the pixels of a picture are looked for, if not at their own rows and columns."""
    if changes is None or changes.jitter is None:
        return None
    rows, columns = np.ogrid[:canvas, :canvas]
    pixel = (rows.astype(np.uint32), columns.astype(np.uint32))
    row, column = (
        (place + changes.jitter * pixel_noise(*pixel, changes.noise, axis=axis)).astype(np.float32)
        for axis, place in enumerate((rows, columns))
    )
    return row, column


def _warped(
    picture: Picture,
    matrix: Float32[np.ndarray, "3 3"] | None,
    places: Places | None,
    window: tuple[slice, slice],
    *,
    border: Literal["mirror", "black"],
) -> Picture:
    """What lies at `matrix` times the pixels of a window (rows, columns), before rounding.

    `places` are those of `_jittered`.
    """
    if matrix is None and places is None:
        return picture
    beyond = cv2.BORDER_REFLECT_101 if border == "mirror" else cv2.BORDER_CONSTANT
    matrix = np.eye(3, dtype=np.float32) if matrix is None else matrix
    values = picture.astype(np.float32)
    if places is None:
        rows, columns = window
        size = (columns.stop - columns.start, rows.stop - rows.start)
        shift = np.array([[1, 0, columns.start], [0, 1, rows.start], [0, 0, 1]], np.float64)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(values, matrix @ shift, size, flags=how, borderMode=beyond)
    row, column = (each[window] for each in places)
    x, y, w = (m[0] * column + m[1] * row + m[2] for m in matrix)
    return cv2.remap(values, x / w, y / w, cv2.INTER_LINEAR, borderMode=beyond)


def _finished(picture: Picture, data: DataConfig) -> Picture:
    if data.resize is not None:
        side = (data.resize, data.resize)
        if picture.shape[:2] != side:
            picture = cv2.resize(picture, side, interpolation=cv2.INTER_CUBIC)
    if data.threshold is not None:
        picture = np.where(picture >= data.threshold_level, picture, 0).astype(np.uint8)
    if data.center:
        picture = _centred(picture)
    if data.pad is not None:
        margin = data.pad - len(picture)
        sides = (margin // 2, margin - margin // 2)
        picture = np.pad(picture, (sides, sides, *[(0, 0)] * (picture.ndim - 2)))
    return picture


def _centred(picture: Picture) -> Picture:
    """The box of what is not black moved to the middle; an odd pixel is left after it."""
    marked: Any = picture.reshape(*picture.shape[:2], -1).any(-1)
    centred = np.zeros_like(picture)
    if not marked.any():
        return centred
    size = len(picture)
    spans = []
    for axis in (1, 0):
        (places,) = marked.any(axis).nonzero()
        first, after = int(places[0]), int(places[-1]) + 1
        start = first + (size - first - after) // 2
        spans.append((slice(first, after), slice(start, start + after - first)))
    (rows, new_rows), (columns, new_columns) = spans
    centred[new_rows, new_columns] = picture[rows, columns]
    return centred


def _three_channels(picture: Picture) -> UInt8[np.ndarray, "h w *rgb"]:
    return picture[..., None] if picture.ndim == 2 else picture
