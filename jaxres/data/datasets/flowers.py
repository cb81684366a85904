"""TensorFlow's flowers as published: JPEG photographs in a folder per class, or in their archive.

Published are the archive's checksum (TFDS's) and how many images there are of each class.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from jaxres.data.datasets.dataset import (
    Content,
    Dataset,
    Example,
    Request,
    Selection,
    Source,
    Split,
)
from jaxres.data.datasets.download import download
from jaxres.data.datasets.splits import (
    TENTH_SEED,
    shuffled,
    tenth_of_each_class,
    train_or_validation,
)
from jaxres.data.datasets.stored import labels_of
from jaxres.data.readers import archives, decoding
from jaxres.data.readers.encoded import EncodedImages
from jaxres.runtime.errors import InputError

TITLE = "Flowers, photographs of five classes"
HOMEPAGE = "https://www.tensorflow.org/tutorials/load_data/images"
CITATION = "The TensorFlow team: Flowers. 2019."
ARCHIVE = "flower_photos.tgz"
ARCHIVE_URL = f"http://download.tensorflow.org/example_images/{ARCHIVE}"
ARCHIVE_SHA256 = "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c"
FOLDER = "flower_photos"  # in the archive
# In the order of TFDS's labels.
PUBLISHED = {"dandelion": 898, "daisy": 633, "tulips": 799, "sunflowers": 699, "roses": 641}


def read(path: Path) -> dict[str, dict[str, bytes]]:
    """The content of the JPEG files by class and name, both in a fixed order.

    Args:
        path: The archive, or a folder that holds it, its folder or the folders of the classes.

    Raises:
        InputError: a class has no images.
    """
    found: dict[str, dict[str, bytes]] = {name: {} for name in PUBLISHED}
    archive = _archive_of(path)
    for file, content in archives.read_archive(archive) if archive else _in_folder(path):
        # Archives made on a Mac hold a `._name.jpg`, which is not an image, beside each image.
        if file.parent.name in found and file.suffix == ".jpg" and file.name[0] != ".":
            found[file.parent.name][file.name] = content
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise InputError(
            f"{path} has no images of {', '.join(empty)}: looked for .jpg files in folders of "
            f"these names, there or in {FOLDER}, and for {ARCHIVE}"
        )
    return {name: dict(sorted(files.items())) for name, files in found.items()}


def differences(path: Path, counts: dict[str, int]) -> str | None:
    """What differs from what is published: the archive, or numbers of images; None if nothing."""
    if archive := _archive_of(path):
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return None if found == ARCHIVE_SHA256 else f"the archive's sha256 is {found}"
    differing = [
        f"{counts[name]} of {published} {name}"
        for name, published in PUBLISHED.items()
        if counts[name] != published
    ]
    return ", ".join(differing) or None


def _archive_of(path: Path) -> Path | None:
    """The archive that is read: the path itself, or that in a folder without unpacked classes."""
    if path.is_file():
        return path
    archive = path / ARCHIVE
    unpacked = any(folder.is_dir() for folder in _class_folders(path))
    return archive if archive.is_file() and not unpacked else None


def _class_folders(folder: Path) -> list[Path]:
    return [root / name for root in (folder, folder / FOLDER) for name in PUBLISHED]


def _in_folder(folder: Path) -> Iterator[tuple[PurePath, bytes]]:
    for path in (file for parent in _class_folders(folder) for file in parent.glob("*.jpg")):
        yield path, archives.read_bytes(path)


def load(dataset: Dataset, selection: Selection) -> Source:
    """Flowers, of which the same tenth is always for test."""
    prepared = dataset.open(selection.data_dir)
    examples = list(prepared.read("train"))
    labels = labels_of(dataset, prepared, examples)
    test = tenth_of_each_class(labels)
    if selection.split == "test":
        chosen = test
    else:
        others = np.setdiff1d(np.arange(len(labels)), test)
        chosen = train_or_validation(others, dataset.name, selection)
    # They are filed by class: shuffled, the first N of a split are of all classes.
    chosen = chosen[shuffled(len(chosen), TENTH_SEED)]
    encoded = [examples[index]["image"] for index in chosen]
    images = EncodedImages(encoded, selection.canvas, prepared.folder)
    return Source(images, labels[chosen], dataset.class_names, prepared.partial)


def prepare(request: Request) -> Content:
    """TensorFlow's flowers, with the features and the one split of TFDS's tf_

    Their JPEG bytes are stored as they are, once they are seen to be whole images.
    """
    import tensorflow_datasets as tfds

    path = request.from_dir or download(request, {"archive": ARCHIVE_URL})["archive"]
    found = read(path)
    counts = {name: len(files) for name, files in found.items()}
    lacking = differences(path, counts)
    if lacking and not request.partial:
        raise InputError(
            f"{path} lacks published images of flowers ({lacking}): complete it, or "
            "pass --partial to take what is there"
        )

    def example(file: tuple[str, str, bytes]) -> Example:
        name, file_name, content = file
        decoding.decode_file(content, path / name / file_name)
        return {"image": content, "label": name}

    every = ((name, *file) for name, files in found.items() for file in files.items())

    return Content(
        description=TITLE,
        features={
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=list(PUBLISHED)),
        },
        splits={"train": Split(sum(counts.values()), request.bad.usable(example, every))},
        supervised_keys=("image", "label"),
        homepage=HOMEPAGE,
        citation=CITATION,
        partial=lacking,
    )


FLOWERS = Dataset(
    name="flowers",
    title=TITLE,
    class_names=tuple(PUBLISHED),
    load=load,
    prepare=prepare,
    version="3.0.1",
    photographs=True,
    may_be_partial=True,
    may_skip=True,
)
