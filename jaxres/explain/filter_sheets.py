"""Sheets of what filters and pooling make of an image file, and of a network's first filters."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxres.data.readers import archives, decoding
from jaxres.evaluation.run import open_checkpoint
from jaxres.explain.filters import (
    KERNELS,
    filtered,
    first_kernel,
    kernel_images,
    kernel_of,
    pooled,
)
from jaxres.explain.sheet import contact_sheet, enlarged

MOST_SIDE = 320  # pixels; larger images are shrunk
LEAST_SIDE = 128
FILTER_SIDE = 32  # pixels, at least, of a network's filter on a sheet

Sheet = UInt8[np.ndarray, "sheet_h sheet_w 3"]


def filters_sheet(path: Path) -> tuple[Sheet, str]:
    """An image before and after each of `KERNELS`, whose numbers stand below; what was done.

    Raises:
        InputError: the file is not an image.
    """
    image = _read(path)
    images, captions = [image], ["image"]
    for name, (numbers, divisor) in KERNELS.items():
        images.append(filtered(image, kernel_of(name)))
        lines = [" ".join(f"{number:3d}" for number in numbers[k : k + 3]) for k in (0, 3, 6)]
        lines[-1] += f"  / {divisor}" if divisor != 1 else ""
        captions.append("\n".join([name, *lines]))
    sheet = contact_sheet(enlarged(np.stack(images), LEAST_SIDE), captions)
    height, width = image.shape[:2]
    return sheet, f"{len(KERNELS)} filters of 3x3 on {width}x{height} pixels"


def first_filters_sheet(run_dir: Path, *, which: str) -> tuple[Sheet, str]:
    """The filters of a run's first convolution, numbered; which layer it is.

    Raises:
        InputError: no such run or checkpoint, or the network has no such filters.
    """
    opened = open_checkpoint(run_dir, which)
    name, kernel = first_kernel(opened.weights["params"])
    images = enlarged(kernel_images(kernel), FILTER_SIDE)
    height, width, _, count = kernel.shape
    sheet = contact_sheet(images, [str(number) for number in range(count)])
    return sheet, f"{name}: {count} filters of {height}x{width} (checkpoint of step {opened.step})"


def pooling_sheet(path: Path, size: int) -> Sheet:
    """An image and what each kind of pooling makes of it, pixels enlarged to the same size.

    Raises:
        InputError: the file is not an image, or the window does not fit it.
    """
    image = _read(path)
    height, width = image.shape[:2]
    images, captions = [image], [f"image\n{width}x{height}"]
    for kind, small in pooled(image, size).items():
        times = 1 if kind == "depthwise" else size
        large = small.repeat(times, axis=0).repeat(times, axis=1)
        whole = np.full_like(image, 255)
        whole[: large.shape[0], : large.shape[1]] = large
        images.append(whole)
        over = "over red, green, blue" if kind == "depthwise" else f"{size}x{size}"
        captions.append(f"{kind} {over}\n{small.shape[1]}x{small.shape[0]}")
    return contact_sheet(enlarged(np.stack(images), LEAST_SIDE), captions, columns=len(images))


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file, transparent parts over black, shrunk to a longer side of `MOST_SIDE`."""
    image = decoding.decode_file(archives.read_bytes(path), path)
    short, long = sorted(image.shape[:2])
    return decoding.shrink(image, max(1, short * MOST_SIDE // max(long, MOST_SIDE)))
