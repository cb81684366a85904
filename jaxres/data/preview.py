"""A contact sheet: what a recipe's pictures look like, with their labels."""

import math
from pathlib import Path

import cv2
import jax
import numpy as np

from jaxres.config import Config, Split
from jaxres.data import render_device
from jaxres.data.pictures import open_split
from jaxres.data.scatter import Scatter
from jaxres.errors import InputError

MARGIN = 4  # pixels between pictures
CAPTION = 16  # pixels under a picture


def write_sheet(config: Config, path: Path, *, split: Split, count: int) -> None:
    """Write a PNG of the first `count` pictures of a split, by the renderer of the recipe.

    Raises:
        InputError: the data is not there or the file cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"--output is '{path}'; allowed: a name ending in .png")
    pictures = open_split(config, split)
    examples = np.arange(min(count, len(pictures)), dtype=np.int32)
    batch = pictures.batch(examples, epoch=0, first=0)
    images = batch.get("image")
    if images is None:
        render = jax.jit(render_device.render, static_argnames="data")
        resident = pictures.resident
        if not isinstance(pictures.compose, Scatter):  # whose digits are any of the source's
            resident = resident._replace(images=resident.images[:count])
        planned = batch["plan"], batch.get("augmentation")
        images = np.asarray(render(*planned, resident.decoded(), data=config.data))
    names = [pictures.class_names[label] for label in batch["label"]]
    encoded, png = cv2.imencode(".png", contact_sheet(images, names)[..., ::-1])
    try:
        if not encoded:
            raise OSError("PNG encoding failed")
        path.write_bytes(png.tobytes())
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from None


def contact_sheet(images: np.ndarray, captions: list[str]) -> np.ndarray:
    """Pictures (uint8, n h w 3) in rows on white, each with its caption below; uint8, H W 3."""
    n, height, width = images.shape[:3]
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    cell = (height + CAPTION + MARGIN, width + MARGIN)
    sheet = np.full((rows * cell[0] + MARGIN, columns * cell[1] + MARGIN, 3), 255, np.uint8)
    for k, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top = MARGIN + k // columns * cell[0]
        left = MARGIN + k % columns * cell[1]
        sheet[top : top + height, left : left + width] = image
        cv2.putText(
            sheet,
            caption,
            (left, top + height + CAPTION - 4),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4,
            (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
    return sheet
