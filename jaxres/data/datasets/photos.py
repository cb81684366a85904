"""A folder tree of photographs: which split each belongs to, and reading one to be stored.

Photographs of train, validation and test never mix: where a digit image is judged, its
background must be new to the network.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxres.data.datasets.bad import Bad
from jaxres.data.datasets.dataset import Content, Dataset, Example, Request, Split, png
from jaxres.data.readers import archives, decoding, folders
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say, track

LOG = logging.getLogger(__name__)

MIN_SIDE = 32
SPLITS_BY_FOLDER = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}


class Photo(NamedTuple):
    """A photograph and the hash of its file's content."""

    path: Path
    sha256: str


def split_photos(root: Path, bad: Bad, *, shown: bool) -> dict[str, list[Photo]]:
    """Photographs per split; no content is in two of them, none twice in one.

    Folders train, val (or validation) and test decide where they are, at the top or, as an unzipped
    archive has them, below folders that are all there is; otherwise the hash of a file's content
    does (70, 15 and 15 %), so that a photograph stays in its split whatever is added to the folder
    or renamed in it.

    Args:
        root: The folder tree.
        bad: Gets what cannot be used.
        shown: Whether to report progress, and how they were split.
    """
    paths = folders.find_images(root)
    for problem in folders.unread(root):
        bad.note(problem)
    top = folders.common_folder(root, paths, but=SPLITS_BY_FOLDER)
    by_folder = any(_top_folder(path, top) in SPLITS_BY_FOLDER for path in paths)
    how = f"by the folders in {top}"
    if not by_folder:
        how = f"by the hash of their content: no folders train, validation and test in {top}"
    say(f"photos, split {how}", shown=shown)
    splits: dict[str, list[Photo]] = {"train": [], "validation": [], "test": []}
    seen: dict[str, tuple[str, Path]] = {}
    for path in track(paths, len(paths), "photos, comparing", shown):
        with bad.noting():
            sha256 = hashlib.sha256(archives.read_bytes(path)).hexdigest()
            split = _split_by_folder(path, top) if by_folder else _split_by_hash(sha256)
            if sha256 not in seen:
                seen[sha256] = (split, path)
                splits[split].append(Photo(path, sha256))
                continue
            other_split, other = seen[sha256]
            if other_split != split:
                raise InputError(
                    f"{other} ({other_split}) and {path} ({split}) are the same image; a "
                    "photograph may be in one split only"
                )
            LOG.warning("%s is left out: the same image as %s", path, other)
    for split, photos in splits.items():
        if not photos:
            bad.finish()
            raise InputError(
                f"{root} gives split '{split}' none of its {len(seen)} images: add images, or "
                "sort them into folders train, validation and test"
            )
    return splits


def read_shrunk(path: Path, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph, RGB, shrunk to a short side of at most `side` pixels."""
    image = decoding.read_image(path)
    short_side = min(image.shape[:2])
    if short_side < MIN_SIDE:
        raise InputError(
            f"the short side of {path} is {short_side} pixels; allowed: {MIN_SIDE} or more"
        )
    return decoding.shrink(image, side)


def _top_folder(path: Path, root: Path) -> str:
    return path.relative_to(root).parts[0].lower()


def _split_by_folder(path: Path, root: Path) -> str:
    split = SPLITS_BY_FOLDER.get(_top_folder(path, root))
    if split is None:
        raise InputError(
            f"{path} is outside the folders train, validation (val) and test, of which {root} has "
            "some: put every image into one of them, or none"
        )
    return split


def _split_by_hash(sha256: str) -> str:
    share = int(sha256[:8], 16) / 2**32
    if share < 0.70:
        return "train"
    return "validation" if share < 0.85 else "test"


def prepare(request: Request) -> Content:
    """Any folder tree of images, as backgrounds.

    Stored as PNG, four times the size of a good JPEG (95 MB for 500 photographs of 256x384): its
    pixels are the same with every version of every decoder, and so are the training images.
    """
    import tensorflow_datasets as tfds

    if request.from_dir is None:
        raise InputError(
            "photos are not published anywhere: give a folder of images, "
            "`jaxres data prepare photos --from DIR`"
        )
    root, photo_side = request.from_dir, request.photo_side

    def example(photo: Photo) -> Example:
        return {
            "image": png(read_shrunk(photo.path, photo_side)),
            "file_name": os.fsencode(photo.path.relative_to(root)).decode(errors="replace"),
            "sha256": photo.sha256,
        }

    return Content(
        description=f"Photographs, shrunk to a short side of at most {photo_side} pixels.",
        features={
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "file_name": tfds.features.Text(),
            "sha256": tfds.features.Text(),
        },
        splits={
            split: Split(len(members), request.bad.usable(example, members))
            for split, members in split_photos(root, request.bad, shown=request.progress).items()
        },
    )


PHOTOS = Dataset(
    name="photos",
    title="your own photographs",
    prepare=prepare,
    version="1.0.0",
    features=frozenset({"image", "file_name"}),
    settings=("photo_side",),
    may_skip=True,
)
