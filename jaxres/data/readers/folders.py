"""Folders of images."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from jaxres.runtime.errors import InputError, unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
# Images too, but not read: left out without a word, they would be missed.
OTHER_SUFFIXES = (
    ".heic",
    ".heif",
    ".avif",
    ".jxl",
    ".gif",
    ".tif",
    ".tiff",
    ".jp2",
    ".dng",
    ".raw",
)


def require_folder(folder: Path) -> None:
    """Refuse a path that is not a folder."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {state}: give the folder that holds the original files")


def find_images(folder: Path) -> list[Path]:
    """Every file with an image's suffix below a folder, sorted; of links to folders too.

    Hidden files and folders are passed over: archives made on a Mac hold a `._name.jpg`, which is
    no image, beside each image.
    """
    require_folder(folder)
    images = sorted(_walk(folder, IMAGE_SUFFIXES))
    if not images:
        raise InputError(f"no images in {folder}: looked for {', '.join(IMAGE_SUFFIXES)}")
    return images


def common_folder(root: Path, paths: Sequence[Path], *, but: Collection[str]) -> Path:
    """The folder below which all images are, as in an unpacked archive; not one named in `but`."""
    while True:
        below = {path.relative_to(root).parts[0] for path in paths}
        (only,) = below if len(below) == 1 else ("",)
        if not only or only.lower() in but or not (root / only).is_dir():
            return root
        root /= only


def find_others(folder: Path) -> list[Path]:
    """Every file of a kind of image that is not read, below a folder, sorted."""
    return sorted(_walk(folder, OTHER_SUFFIXES))


def unread(folder: Path) -> list[str]:
    """Why each file of a kind of image that is not read cannot be used."""
    return [
        f"{path} is of a kind that is not read (allowed: JPEG, PNG, WebP, BMP)"
        for path in find_others(folder)
    ]


def _walk(
    folder: Path, suffixes: tuple[str, ...], above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """Files with these suffixes; a link to a folder that it lies in leads nowhere new."""
    try:
        about = folder.stat()
        entries = [(path, path.is_dir()) for path in folder.iterdir()]
    except OSError as error:
        raise unreadable(folder, error) from error
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    for path, is_folder in entries:
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if is_folder:
            yield from _walk(path, suffixes, above | {here})
        elif path.name.lower().endswith(suffixes):
            yield path
