"""What each data set consists of: its features and splits, its examples read from the originals."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.data import cifar10, contest, decoding, flowers, originals, photos
from jaxres.data.bad import Bad
from jaxres.data.download import download
from jaxres.errors import InputError
from jaxres.screen import say

Example = dict[str, Any]  # "image" holds encoded bytes


class Request(NamedTuple):
    """What was asked for."""

    name: str
    from_dir: Path | None
    data_dir: Path
    progress: bool
    photo_side: int
    partial: bool
    bad: Bad  # gets the pictures that cannot be used


class Split(NamedTuple):
    """The examples of one split, made as they are written."""

    count: int
    examples: Iterable[Example]


class Content(NamedTuple):
    """A data set about to be written."""

    description: str
    features: dict[str, Any]  # TFDS feature connectors
    splits: dict[str, Split]
    supervised_keys: tuple[str, str] | None = None
    homepage: str | None = None
    citation: str | None = None
    partial: str | None = None  # what of the published set is missing


class Recipe(NamedTuple):
    """How a data set is made from its originals."""

    read: Callable[[Request], Content]
    # Fields of the request that change what is written; noted in the data set's metadata.
    settings: tuple[str, ...] = ()
    may_be_partial: bool = False
    may_skip: bool = False  # pictures that cannot be used


def _png(picture: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A grey or RGB picture as PNG."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)  # pyright: ignore[reportAssignmentType]
    return cv2.imencode(".png", picture)[1].tobytes()


def _digits(request: Request) -> Content:
    """MNIST and its successors, with the features and splits of TFDS's own."""
    import tensorflow_datasets as tfds

    published = originals.PUBLISHED[request.name]
    if request.from_dir is None:
        paths = _download(request, {key: file.url for key, file in published.files.items()})
    else:
        paths = {
            key: originals.find_idx(request.from_dir, file.name)
            for key, file in published.files.items()
        }
    arrays = {
        key: originals.read_idx(path, md5=published.files[key].md5) for key, path in paths.items()
    }

    def split(images: UInt8[np.ndarray, "n h w"], labels: UInt8[np.ndarray, " n"]) -> Split:
        pairs = zip(images, labels, strict=True)
        return Split(len(images), ({"image": _png(i), "label": int(k)} for i, k in pairs))

    return Content(
        description=published.title,
        features={
            "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=published.class_names),
        },
        splits={
            name: split(arrays[f"{name}_images"], arrays[f"{name}_labels"])
            for name in ("train", "test")
        },
        supervised_keys=("image", "label"),
        homepage=published.homepage,
        citation=published.citation,
    )


def _download(request: Request, urls: dict[str, str]) -> dict[str, Path]:
    return download(request.name, urls, request.data_dir, progress=request.progress)


def _cifar10(request: Request) -> Content:
    """CIFAR-10, with the features and splits of TFDS's own."""
    import tensorflow_datasets as tfds

    path = request.from_dir or _download(request, {"archive": cifar10.ARCHIVE_URL})["archive"]
    batches = cifar10.read(path, partial=request.partial)
    missing = [name for name in cifar10.BATCHES if name not in batches]

    def split(name: str, parts: list[cifar10.Batch]) -> Split:
        def examples() -> Iterator[Example]:
            pairs = ((i, k) for part in parts for i, k in zip(*part, strict=True))
            for index, (image, label) in enumerate(pairs):
                yield {"id": f"{name}_{index:05d}", "image": _png(image), "label": label}

        return Split(sum(len(part.labels) for part in parts), examples())

    return Content(
        description=cifar10.TITLE,
        features={
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=cifar10.CLASS_NAMES),
        },
        splits={
            "train": split("train", [batches[key] for key in cifar10.TRAIN if key in batches]),
            "test": split("test", [batches[cifar10.TEST]]),
        },
        supervised_keys=("image", "label"),
        homepage=cifar10.HOMEPAGE,
        citation=cifar10.CITATION,
        partial=f"without {', '.join(missing)}" if missing else None,
    )


def _flowers(request: Request) -> Content:
    """TensorFlow's flowers, with the features and the one split of TFDS's tf_flowers.

    Their JPEG bytes are stored as they are, once they are seen to be whole pictures.
    """
    import tensorflow_datasets as tfds

    path = request.from_dir or _download(request, {"archive": flowers.ARCHIVE_URL})["archive"]
    pictures = flowers.read(path)
    counts = {name: len(files) for name, files in pictures.items()}
    differences = flowers.differences(path, counts)
    if differences and not request.partial:
        raise InputError(
            f"{path} has not the published pictures of flowers ({differences}): complete it, or "
            "pass --partial to take what is there"
        )

    def example(picture: tuple[str, str, bytes]) -> Example:
        name, file_name, content = picture
        decoding.decode_file(content, path / name / file_name)
        return {"image": content, "label": name}

    every = ((name, *file) for name, files in pictures.items() for file in files.items())

    return Content(
        description=flowers.TITLE,
        features={
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=list(flowers.PUBLISHED)),
        },
        splits={"train": Split(sum(counts.values()), request.bad.usable(example, every))},
        supervised_keys=("image", "label"),
        homepage=flowers.HOMEPAGE,
        citation=flowers.CITATION,
        partial=differences,
    )


def _modified_mnist(request: Request) -> Content:
    """The contest's pictures that have labels."""
    import tensorflow_datasets as tfds

    if request.from_dir is None:
        raise InputError(
            "modified_mnist is not published anywhere: give the folder of the contest's files, "
            "`jaxres data prepare modified_mnist --from DIR`"
        )
    images, labels = contest.read_train(request.from_dir)
    if test := contest.find_images(request.from_dir, contest.TEST_IMAGES):
        say(
            f"{test.name} has no published labels, so it becomes no split: it is for "
            f"`jaxres predict RUN_DIR --submission {test} -o FILE.csv`",
            shown=request.progress,
        )
    pairs = zip(images, labels, strict=True)
    examples = ({"image": _png(image), "label": int(label)} for image, label in pairs)
    return Content(
        description=contest.TITLE,
        features={
            "image": tfds.features.Image(shape=(*images.shape[1:], 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=contest.CLASS_NAMES),
        },
        splits={"train": Split(len(labels), examples)},
        supervised_keys=("image", "label"),
    )


def _photos(request: Request) -> Content:
    """Any folder tree of pictures, as backgrounds.

    Stored as PNG, four times the size of a good JPEG (95 MB for 500 photographs of 256x384): its
    pixels are the same with every version of every decoder, and so are the training pictures.
    """
    import tensorflow_datasets as tfds

    if request.from_dir is None:
        raise InputError(
            "photos are not published anywhere: give a folder of pictures, "
            "`jaxres data prepare photos --from DIR`"
        )
    root, photo_side = request.from_dir, request.photo_side

    def example(photo: photos.Photo) -> Example:
        return {
            "image": _png(photos.read_shrunk(photo.path, photo_side)),
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
            for split, members in photos.split_photos(
                root, request.bad, shown=request.progress
            ).items()
        },
    )


RECIPES: dict[str, Recipe] = {
    "mnist": Recipe(_digits),
    "fashion_mnist": Recipe(_digits),
    "cifar10": Recipe(_cifar10, may_be_partial=True),
    "flowers": Recipe(_flowers, may_be_partial=True, may_skip=True),
    "modified_mnist": Recipe(_modified_mnist),
    "photos": Recipe(_photos, settings=("photo_side",), may_skip=True),
}
