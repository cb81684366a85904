"""CIFAR-10 as published: six Python batches, as files or in their tar archive.

A batch is a pickle, and a pickle can make Python do anything. So none is read before its checksum
is found right, and then by a reader that knows arrays only.
"""

import hashlib
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxres.data.datasets.dataset import Content, Dataset, Example, Request, Split, png
from jaxres.data.datasets.download import download
from jaxres.data.datasets.stored import load_published
from jaxres.data.readers import archives
from jaxres.runtime.errors import InputError

TITLE = "CIFAR-10 photographs of ten classes, 32x32 RGB"
HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
CITATION = "A. Krizhevsky: Learning multiple layers of features from tiny images. 2009."
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE_URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
FOLDER = "cifar-10-batches-py"  # in the archive
BATCHES = {  # md5 of the pickle
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
*TRAIN, TEST = BATCHES

MAX_BATCH_BYTES = 64 << 20  # twice a batch
# What the published pickles name, and nothing else. NumPy's name for its maker of arrays has
# moved since; an array knows its own.
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class Batch(NamedTuple):
    """Ten thousand images with their labels, in published order."""

    images: UInt8[np.ndarray, "n 32 32 3"]
    labels: list[int]


def read(path: Path, *, partial: bool) -> dict[str, Batch]:
    """The batches by name, in published order.

    Args:
        path: The archive, or a folder that holds it, its folder or the batches, gzipped or not.
        partial: Whether batches for training may be missing.
    """
    found = dict(_in_archive(path) if path.is_file() else _in_folder(path))
    missing = [name for name in BATCHES if name not in found]
    if TEST in missing or len(found) < 2 or (missing and not partial):
        remedy = "" if partial else ", or pass --partial to do without some of data_batch_1 to 5"
        raise InputError(f"no {', '.join(missing)} of CIFAR-10 in {path}: add them{remedy}")
    return {name: _unpickle(found[name]) for name in BATCHES if name in found}


def _in_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and checked content of the batches in a folder, or of the archive in it."""
    paths = {
        name: path
        for parent in (folder, folder / FOLDER)
        for name in BATCHES
        for path in (parent / name, parent / f"{name}.gz")
        if path.is_file()
    }
    if not paths and (folder / ARCHIVE).is_file():
        yield from _in_archive(folder / ARCHIVE)
    for name, path in paths.items():
        with archives.open_unpacked(path) as file:
            content = file.read(MAX_BATCH_BYTES)
        _require_md5(content, BATCHES[name], str(path))
        yield name, content


def _in_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    _require_md5(archives.read_bytes(path), ARCHIVE_MD5, str(path))
    for member, content in archives.read_archive(path):
        if member.name in BATCHES:
            _require_md5(content, BATCHES[member.name], f"{member} in {path}")
            yield member.name, content


def _require_md5(content: bytes, expected: str, what: str) -> None:
    found = hashlib.md5(content).hexdigest()
    if found != expected:
        raise InputError(f"{what} is not the published file: md5 {found}, expected {expected}")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise InputError(f"a CIFAR-10 batch names {module}.{name}; allowed: arrays only")
        return ARRAY_PARTS[module, name]


def _unpickle(content: bytes) -> Batch:
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    # A row of 3,072 values: 1,024 of red, then of green and blue.
    planes = batch[b"data"].reshape(-1, 3, 32, 32)
    return Batch(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), batch[b"labels"])


def prepare(request: Request) -> Content:
    """CIFAR-10, with the features and splits of TFDS's own."""
    import tensorflow_datasets as tfds

    path = request.from_dir or download(request, {"archive": ARCHIVE_URL})["archive"]
    batches = read(path, partial=request.partial)
    missing = [name for name in BATCHES if name not in batches]

    def split(name: str, parts: list[Batch]) -> Split:
        def examples() -> Iterator[Example]:
            pairs = ((i, k) for part in parts for i, k in zip(*part, strict=True))
            for index, (image, label) in enumerate(pairs):
                yield {"id": f"{name}_{index:05d}", "image": png(image), "label": label}

        return Split(sum(len(part.labels) for part in parts), examples())

    return Content(
        description=TITLE,
        features={
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
        },
        splits={
            "train": split("train", [batches[key] for key in TRAIN if key in batches]),
            "test": split("test", [batches[TEST]]),
        },
        supervised_keys=("image", "label"),
        homepage=HOMEPAGE,
        citation=CITATION,
        partial=f"without {', '.join(missing)}" if missing else None,
    )


CIFAR10 = Dataset(
    name="cifar10",
    title=TITLE,
    class_names=CLASS_NAMES,
    load=load_published,
    prepare=prepare,
    version="3.0.2",
    may_be_partial=True,
)
