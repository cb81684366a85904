"""TensorFlow's flowers as published: JPEG photographs in a folder per class, or in their archive.

Their checksums are not published, but how many there are of each class is.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath

from jaxres.data import originals
from jaxres.errors import InputError

TITLE = "Flowers, photographs of five classes"
HOMEPAGE = "https://www.tensorflow.org/tutorials/load_data/images"
CITATION = "The TensorFlow team: Flowers. 2019."
ARCHIVE = "flower_photos.tgz"
ARCHIVE_URL = f"http://download.tensorflow.org/example_images/{ARCHIVE}"
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
    for file, content in originals.read_archive(path) if path.is_file() else _in_folder(path):
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


def differences(counts: dict[str, int]) -> str | None:
    """Which classes have another number of pictures than published; None where none has."""
    differing = [
        f"{counts[name]} of {published} {name}"
        for name, published in PUBLISHED.items()
        if counts[name] != published
    ]
    return ", ".join(differing) or None


def _in_folder(folder: Path) -> Iterator[tuple[PurePath, bytes]]:
    folders = [root / name for root in (folder, folder / FOLDER) for name in PUBLISHED]
    if not any(path.is_dir() for path in folders) and (folder / ARCHIVE).is_file():
        yield from originals.read_archive(folder / ARCHIVE)
    for path in (file for parent in folders for file in parent.glob("*.jpg")):
        yield path, originals.read_bytes(path)
