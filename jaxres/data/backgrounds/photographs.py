"""Background banks: square crops of photographs, all of one side, whole in memory.

A photograph is shrunk or cut, never stretched and never enlarged. No photograph is in the banks
of two splits.
"""

import importlib.resources
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxres.config import Split
from jaxres.data.datasets import registry
from jaxres.data.datasets.splits import SPLITS
from jaxres.data.readers import decoding, tfds_records
from jaxres.runtime.errors import InputError, unknown_name

# scikit-learn's two photographs are 640x427. Cut in halves of 320 columns they give every split
# its own image ground, with a short side that is enough for a canvas of 224.
EMBEDDED_HALVES = {
    "train": (("china.jpg", "left"), ("flower.jpg", "left")),
    "validation": (("china.jpg", "right"),),
    "test": (("flower.jpg", "right"),),
}


class Region(NamedTuple):
    """A photograph, or a part of one, and what to call it in an error."""

    name: str
    pixels: UInt8[np.ndarray, "h w 3"]


class Bank(NamedTuple):
    """A registry entry."""

    title: str
    read: Callable[[Split, Path], list[Region]] | None  # None: no photographs, black
    prepared: bool = False
    embedded_examples: dict[str, int] | None = None


def load(
    name: str, split: Split, *, data_dir: Path, canvas: int, photo_side: int | None
) -> UInt8[np.ndarray, "m s s 3"]:
    """The bank of one split, RGB: m squares of side s, at least `canvas`.

    s is the smallest short side among the split's photographs. The others are shrunk to it, and
    each is cut along its long side into ceil(long / s) squares, evenly spaced and overlapping
    where they have to.

    Args:
        name: A key of `BANKS`.
        split: Photographs of train, validation and test never mix.
        data_dir: Where prepared datasets live.
        canvas: Side of the images to be made, in pixels.
        photo_side: Shrink photographs to this short side first; None leaves them as they are.
    """
    if name not in BANKS:
        raise unknown_name("background", name, BANKS)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    read = BANKS[name].read
    if read is None:
        return np.zeros((1, canvas, canvas, 3), np.uint8)
    if photo_side is not None and photo_side < canvas:
        raise InputError(
            f"photo_side is {photo_side}; allowed: the canvas of {canvas} pixels or more"
        )
    regions = read(split, data_dir)
    smallest = min(regions, key=_short_side)
    side = _short_side(smallest)
    if side < canvas:
        raise InputError(
            f"the canvas is {canvas} pixels but the short side of {smallest.name} in backgrounds "
            f"'{name}' is {side}: choose a canvas of at most {side} or larger photographs"
        )
    if photo_side is not None:
        side = min(side, photo_side)
    return np.concatenate([_squares(decoding.shrink(region.pixels, side)) for region in regions])


def describe(data_dir: Path) -> list[tfds_records.Row]:
    """A row per background for `jaxres data list`."""
    return [
        registry.PREPARABLE[name].describe(data_dir)
        if bank.prepared
        else tfds_records.Row(name, bank.title, True, None, bank.embedded_examples or {})
        for name, bank in BANKS.items()
    ]


def _short_side(region: Region) -> int:
    return min(region.pixels.shape[:2])


def _squares(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "m s s 3"]:
    """An image cut along its long side into the fewest squares that cover it."""
    height, width = image.shape[:2]
    side, long_side = min(height, width), max(height, width)
    starts = np.linspace(0, long_side - side, math.ceil(long_side / side)).round().astype(int)
    if height > width:
        return np.stack([image[start : start + side] for start in starts])
    return np.stack([image[:, start : start + side] for start in starts])


def _read_embedded(split: Split, data_dir: Path) -> list[Region]:
    folder = importlib.resources.files("sklearn.datasets.images")
    regions = []
    for file_name, half in EMBEDDED_HALVES[split]:
        image = decoding.decode_image((folder / file_name).read_bytes(), Path(file_name))
        middle = image.shape[1] // 2
        pixels = image[:, :middle] if half == "left" else image[:, middle:]
        regions.append(Region(f"{file_name} ({half} half)", pixels))
    return regions


def _read_prepared(split: Split, data_dir: Path) -> list[Region]:
    prepared = registry.open_prepared("photos", data_dir)
    return [
        Region(
            example["file_name"].decode(errors="replace"),
            decoding.decode_image(example["image"], prepared.folder),
        )
        for example in prepared.read(split)
    ]


BANKS: dict[str, Bank] = {
    "embedded": Bank(
        "scikit-learn's two photographs, cut in halves",
        _read_embedded,
        embedded_examples={"train": 2, "validation": 1, "test": 1},
    ),
    "photos": Bank("your own photographs", _read_prepared, prepared=True),
    "black": Bank("no photograph, black", None),
}
