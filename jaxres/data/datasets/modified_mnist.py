"""The files of the contest of studies S3 and S4, "modified MNIST": arrays of images, CSV labels.

An image shows three digits; its label is the largest. The images for training have labels, those
for the test have none.
"""

import csv
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.data.datasets.dataset import Content, Dataset, Request, Selection, Source, Split, png
from jaxres.data.datasets.splits import tenth_of_each_class, train_or_validation
from jaxres.data.datasets.stored import decoded, labels_of
from jaxres.data.readers import archives, arrays, folders
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

TITLE = "Modified MNIST: the largest of three digits, 128x128"
SIDE = 128
CLASS_NAMES = tuple("0123456789")
TRAIN_IMAGES, TEST_IMAGES, TRAIN_LABELS = "train_max_x", "test_max_x", "train_max_y.csv"
FORMS = ("", ".pkl", ".pickle", ".npy")
PACKINGS = ("", ".gz", ".bz2", ".xz", ".zip")
COLUMNS = ["Id", "Label"]
ROWS_AT_A_TIME = 256


def find_images(folder: Path, name: str) -> Path | None:
    """The array `name` in a folder, in whatever form; None if there is none.

    Raises:
        InputError: there are several.
    """
    spellings = [f"{name}{form}{packing}" for form in FORMS for packing in PACKINGS]
    found = [folder / spelling for spelling in spellings if (folder / spelling).is_file()]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise InputError(f"{folder} has {listed}; allowed: one of them")
    return found[0] if found else None


def read_train(
    folder: Path,
) -> tuple[UInt8[np.ndarray, "n 128 128"], Int32[np.ndarray, " n"]]:
    """The images for training with their labels, in the order of the array."""
    folders.require_folder(folder)
    images_path, labels_path = find_images(folder, TRAIN_IMAGES), folder / TRAIN_LABELS
    if images_path is None:
        raise InputError(
            f"no {TRAIN_IMAGES} in {folder}: looked for it as such, with "
            f"{', '.join(FORMS[1:])}, and packed as {', '.join(PACKINGS[1:])}"
        )
    if not labels_path.is_file():
        raise InputError(
            f"no {TRAIN_LABELS} in {folder}: it holds the labels of {images_path.name}"
        )
    images = read_images(images_path)
    return images, read_labels(labels_path, len(images))


def read_images(path: Path) -> UInt8[np.ndarray, "n 128 128"]:
    """The grey images in an array file; values with fractions are rounded.

    Raises:
        InputError: it is damaged, holds anything else, or pixels outside 0 to 255.
    """
    array = arrays.read(path)
    if array.ndim != 3 or array.shape[1:] != (SIDE, SIDE) or len(array) == 0:
        raise InputError(
            f"'{path}' has shape {array.shape}; allowed: (n, {SIDE}, {SIDE}), n images"
        )
    if array.dtype == np.uint8:
        return array
    images = np.empty(array.shape, np.uint8)
    largest = 0
    for first in range(0, len(array), ROWS_AT_A_TIME):
        part = array[first : first + ROWS_AT_A_TIME]
        low, high = part.min(), part.max()
        if not (low >= 0 and high <= 255):  # neither holds for NaN
            raise InputError(f"'{path}' has pixels from {low} to {high}; allowed: 0 to 255")
        largest = max(largest, high)
        images[first : first + ROWS_AT_A_TIME] = np.rint(part)
    if array.dtype.kind == "f" and largest <= 1:
        raise InputError(
            f"'{path}' has pixels from 0 to {largest}, scaled; allowed: 0 to 255 (times 255)"
        )
    return images


def read_labels(path: Path, count: int) -> Int32[np.ndarray, " n"]:
    """The labels of `count` images in the order of their Ids, 0 to count - 1.

    Raises:
        InputError: it is not such a CSV, or an Id or a label is missing, repeated or out of range.
    """
    try:
        lines = archives.read_bytes(path).decode("utf-8-sig").splitlines()
        rows = list(csv.reader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not readable as CSV: {error}") from error
    header = rows[0] if rows else []
    if header != COLUMNS:
        raise InputError(
            f"{path} begins with {','.join(header)[:80]!r}; allowed: the header {','.join(COLUMNS)}"
        )
    labels: dict[int, int] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != 2:
            raise InputError(
                f"line {line} of {path} has {len(row)} values; allowed: an Id, a label"
            )
        index = _number(row[0], count, f"Id in line {line} of {path}")
        if index in labels:
            raise InputError(f"line {line} of {path} repeats Id {index}; allowed: each Id once")
        labels[index] = _number(row[1], len(CLASS_NAMES), f"label in line {line} of {path}")
    if len(labels) != count:
        raise InputError(f"{path} has labels of {len(labels)} images, the array has {count}")
    return np.array([labels[index] for index in range(count)], np.int32)


def _number(text: str, below: int, what: str) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    if not is_number or int(text) >= below:
        raise InputError(f"the {what} is {text[:40]!r}; allowed: 0 to {below - 1}")
    return int(text)


def load(dataset: Dataset, selection: Selection) -> Source:
    """The contest's labelled images: labels are as unequally frequent in every split as in all.

    The same tenth is always for test, since those of the contest's own test have no labels.
    """
    prepared = dataset.open(selection.data_dir)
    labels = labels_of(dataset, prepared, prepared.read("train"))
    test = tenth_of_each_class(labels)
    if selection.split == "test":
        return decoded(dataset, prepared, "train", np.sort(test).tolist())
    others = np.setdiff1d(np.arange(len(labels)), test)
    chosen = train_or_validation(others, dataset.name, selection, labels=labels)
    return decoded(dataset, prepared, "train", chosen.tolist())


def prepare(request: Request) -> Content:
    """The contest's images that have labels."""
    import tensorflow_datasets as tfds

    if request.from_dir is None:
        raise InputError(
            "modified_mnist is not published anywhere: give the folder of the contest's files, "
            "`jaxres data prepare modified_mnist --from DIR`"
        )
    images, labels = read_train(request.from_dir)
    if test := find_images(request.from_dir, TEST_IMAGES):
        say(
            f"{test.name} has no published labels, so no split is made of it; use it with "
            f"`jaxres predict RUN_DIR --submission {test} -o FILE.csv`",
            shown=request.progress,
        )
    pairs = zip(images, labels, strict=True)
    examples = ({"image": png(image), "label": int(label)} for image, label in pairs)
    return Content(
        description=TITLE,
        features={
            "image": tfds.features.Image(shape=(*images.shape[1:], 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
        },
        splits={"train": Split(len(labels), examples)},
        supervised_keys=("image", "label"),
    )


MODIFIED_MNIST = Dataset(
    name="modified_mnist",
    title=TITLE,
    class_names=CLASS_NAMES,
    load=load,
    prepare=prepare,
    version="1.0.0",
    composed=True,
    digits=True,
)
