"""TensorFlow's flowers as published: JPEG photographs in a folder per class, or in their archive.

Published are the archive's checksum (TFDS's) and how many pictures there are of each class.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath

from jaxres.data import originals
from jaxres.errors import InputError

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
        InputError: a class has no pictures.
    """
    found: dict[str, dict[str, bytes]] = {name: {} for name in PUBLISHED}
    archive = _archive_of(path)
    for file, content in originals.read_archive(archive) if archive else _in_folder(path):
        # Archives made on a Mac hold a `._name.jpg`, which is no picture, beside each picture.
        if file.parent.name in found and file.suffix == ".jpg" and file.name[0] != ".":
            found[file.parent.name][file.name] = content
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise InputError(
            f"{path} has no pictures of {', '.join(empty)}: looked for .jpg files in folders of "
            f"these names, there or in {FOLDER}, and for {ARCHIVE}"
        )
    return {name: dict(sorted(files.items())) for name, files in found.items()}


def differences(path: Path, counts: dict[str, int]) -> str | None:
    """What differs from what is published: the archive, or numbers of pictures; None if nothing."""
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
        yield path, originals.read_bytes(path)
