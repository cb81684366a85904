"""Images in rows with captions, and the PNG files they are written to."""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.runtime.errors import InputError
from jaxres.runtime.files import refusing, require_writable, write_whole

MARGIN = 4  # pixels between images
CAPTION = 16  # height of a line of text under an image, pixels
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def contact_sheet(
    images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str], *, columns: int | None = None
) -> UInt8[np.ndarray, "sheet_h sheet_w 3"]:
    """Images in rows on white, each with its caption below, which may have several lines.

    The images stand as far apart as the longest line needs. `columns` is as many as make the
    rows as many as the columns, where it is left open.
    """
    n, height, width = images.shape[:3]
    lines = [caption.split("\n") for caption in captions]
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    text = max(CAPTION * max(map(len, lines)), CAPTION)
    widest = max(_text_width(line) for caption in lines for line in caption)
    cell = (height + text + MARGIN, max(width, widest) + MARGIN)
    sheet = np.full((rows * cell[0] + MARGIN, columns * cell[1] + MARGIN, 3), 255, np.uint8)
    for k, (image, caption) in enumerate(zip(images, lines, strict=True)):
        top = MARGIN + k // columns * cell[0]
        left = MARGIN + k % columns * cell[1]
        sheet[top : top + height, left : left + width] = image
        for place, line in enumerate(caption, start=1):
            bottom = (left, top + height + place * CAPTION - 4)
            cv2.putText(sheet, line, bottom, FONT, FONT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def enlarged(
    images: UInt8[np.ndarray, "n h w 3"], least: int
) -> UInt8[np.ndarray, "n new_h new_w 3"]:
    """Small images with every pixel repeated, until their longer side has `least` pixels."""
    times = max(1, math.ceil(least / max(images.shape[1:3])))
    return images.repeat(times, axis=1).repeat(times, axis=2)


def require_png_path(path: Path) -> None:
    """Refuse what no PNG file can be written to, before the work for it is done.

    Raises:
        InputError: the name does not end in .png, or its folder is not there.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"--output is '{path}'; allowed: a name ending in .png")
    require_writable(path)


def write_png(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an RGB image, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    encoded, png = cv2.imencode(".png", image[..., ::-1])
    with refusing(path):
        if not encoded:
            raise OSError("PNG encoding failed")
        write_whole(path, png.tobytes())


def _text_width(line: str) -> int:
    (width, _), _ = cv2.getTextSize(line, FONT, FONT_SCALE, 1)
    return width
