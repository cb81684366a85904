"""Preparing a dataset of a user's own: `jaxres data prepare NAME --layout LAYOUT --from PATH`."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.data.datasets.dataset import Content, Dataset, Example, Items, Request, Split, png
from jaxres.data.own import csv_file, image_folder, unpacking
from jaxres.data.readers import archives, decoding, folders
from jaxres.data.readers.stated_size import JPEG_MAGIC, PNG_MAGIC
from jaxres.runtime.errors import InputError

VERSION = "1.0.0"
NAME = re.compile(r"[a-z][a-z0-9_]*")
PNG_DEPTH_AND_COLOURS = slice(24, 26)
RGB_OF_8_BITS = b"\x08\x02"


class Listed(NamedTuple):
    """Image files, each with its class or classes, by split."""

    class_names: tuple[str, ...]
    splits: Mapping[str, Sequence[tuple[Path, int | list[int]]]]
    multi_label: bool = False


def dataset(name: str, layout: str) -> Dataset:
    """The dataset that is prepared under a name of the user's own.

    Raises:
        InputError: it is not a name of a TFDS dataset.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"the dataset's name is '{name}'; allowed: small letters, digits and _, a letter first"
        )
    return Dataset(
        name=name,
        title=TITLES[layout],
        prepare=prepare,
        version=VERSION,
        features=frozenset({"image", "label", "file_name"}),
        photographs=True,
        settings=("layout", "short_side", "quality"),
        may_skip=True,
    )


def prepare(request: Request) -> Content:
    """The images of a layout with their labels and file names.

    JPEG files are stored as they are, once they are seen to be whole, and so are RGB PNG files of 8
    bits; others become such PNG. With a short side, larger images are shrunk to it, as JPEG.
    """
    import tensorflow_datasets as tfds

    if request.from_dir is None:
        raise InputError(f"--layout {request.layout} needs --from PATH, where the images are")
    root = request.from_dir
    listed = LAYOUTS[request.layout](request)
    classes = tfds.features.ClassLabel(names=list(listed.class_names))

    def example(item: tuple[Path, int | list[int]]) -> Example:
        path, label = item
        content = archives.read_bytes(path)
        return {
            "image": stored(content, path, request.short_side, request.quality),
            "label": label,
            "file_name": _told(path, root),
        }

    return Content(
        description=f"{TITLES[request.layout]}, prepared by JaxRes.",
        features={
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.Sequence(classes) if listed.multi_label else classes,
            "file_name": tfds.features.Text(),
        },
        splits={
            split: Split(len(members), Items(members, example, request.bad))
            for split, members in listed.splits.items()
        },
        supervised_keys=("image", "label"),
    )


def stored(content: bytes, path: Path, short_side: int | None, quality: int) -> bytes:
    """The bytes that are stored for an image file.

    Raises:
        InputError: it is not a whole image.
    """
    image = decoding.decode_file(content, path)
    if short_side is not None and min(image.shape[:2]) > short_side:
        return jpeg(decoding.shrink(image, short_side), quality)
    plain_png = content[PNG_DEPTH_AND_COLOURS] == RGB_OF_8_BITS and content.startswith(PNG_MAGIC)
    return content if plain_png or content.startswith(JPEG_MAGIC) else png(image)


def jpeg(image: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """An RGB image as JPEG of a quality of 1 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _told(path: Path, root: Path) -> str:
    """A file's name below what was given, or below where that was unpacked."""
    for folder in (root, *unpacking.places(path)):
        if path.is_relative_to(folder):
            path = path.relative_to(folder)
            break
    return str(path).encode(errors="replace").decode()


def _image_folder(request: Request) -> Listed:
    assert request.from_dir is not None
    root = unpacking.unpacked(request.from_dir, request.stage, shown=request.progress)
    labelled = image_folder.find(root)
    for problem in folders.unread(root):
        request.bad.note(problem)
    image_folder.warn_of_copies(labelled)
    return Listed(labelled.class_names, labelled.splits)


def _csv(request: Request) -> Listed:
    assert request.from_dir is not None
    table = csv_file.read(request.from_dir)
    multi_label = table.labels.ndim == 2
    labels = [np.flatnonzero(row).tolist() if multi_label else int(row) for row in table.labels]
    rows = list(zip(table.files, labels, strict=True))
    splits = {name: rows[part.start : part.stop] for name, part in table.splits.items()}
    return Listed(table.class_names, splits, multi_label)


LAYOUTS: Mapping[str, Callable[[Request], Listed]] = {"image-folder": _image_folder, "csv": _csv}
TITLES = {"image-folder": "a folder of images", "csv": "images listed in a CSV file"}
