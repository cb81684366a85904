"""Readers of files as their authors published them: IDX arrays, archives, folders of pictures.

Nothing here trusts a file: sizes promised by a header are checked against the bytes that are there,
and checksums are those of the decompressed content, since the same file is compressed anew by
every mirror.
"""

import contextlib
import gzip
import hashlib
import io
import math
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxres.errors import InputError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")
# Pictures too, but not read: left out without a word, they would be missed.
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

GZIP_MAGIC = b"\x1f\x8b"
IDX_UINT8_TYPE = 0x08
# Far above the largest published digit file (47 MB): a crafted one cannot fill the memory.
MAX_IDX_BYTES = 256 << 20
# Far above the largest published archive (235 MB unpacked), for the same reason.
MAX_ARCHIVE_BYTES = 512 << 20
READ_CHUNK_BYTES = 1 << 20


class File(NamedTuple):
    """A published file: its name without `.gz`, the md5 of its decompressed bytes, its address."""

    name: str
    md5: str
    url: str


class Published(NamedTuple):
    """A published data set in IDX files, keyed `train_images`, `train_labels` and so on."""

    title: str
    class_names: tuple[str, ...]
    files: dict[str, File]
    homepage: str
    citation: str


def _idx_files(base_url: str, md5: dict[str, str]) -> dict[str, File]:
    """The four files that MNIST and its successors consist of."""
    names = {
        "train_images": "train-images-idx3-ubyte",
        "train_labels": "train-labels-idx1-ubyte",
        "test_images": "t10k-images-idx3-ubyte",
        "test_labels": "t10k-labels-idx1-ubyte",
    }
    return {key: File(name, md5[key], f"{base_url}{name}.gz") for key, name in names.items()}


PUBLISHED: dict[str, Published] = {
    "mnist": Published(
        title="MNIST handwritten digits, 28x28",
        class_names=tuple("0123456789"),
        files=_idx_files(
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            {
                "train_images": "6bbc9ace898e44ae57da46a324031adb",
                "train_labels": "a25bea736e30d166cdddb491f175f624",
                "test_images": "2646ac647ad5339dbf082846283269ea",
                "test_labels": "27ae3e4e09519cfbb04c329615203637",
            },
        ),
        homepage="http://yann.lecun.com/exdb/mnist/",
        citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-based learning applied to "
        "document recognition. Proceedings of the IEEE 86(11), 1998.",
    ),
    "fashion_mnist": Published(
        title="Fashion-MNIST articles of clothing, 28x28",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        files=_idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            {
                "train_images": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "train_labels": "9018921c3c673c538a1fc5bad174d6f9",
                "test_images": "8181f5470baa50b63fa0f6fddb340f0a",
                "test_labels": "15d484375f8d13e6eb1aabb0c3f46965",
            },
        ),
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        citation="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a novel image dataset for "
        "benchmarking machine learning algorithms. arXiv:1708.07747, 2017.",
    ),
}


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file to be read, unpacked if it is gzipped (told by content, not by name).

    Raises:
        InputError: it cannot be read, or turns out to be damaged while it is.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            with gzip.open(raw) if packed else raw as unpacked:
                yield unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is truncated or damaged: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def read_archive(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Names and contents of the files in a tar archive, gzipped or plain, in its order.

    Nothing is written to disk, so no name in it can do harm.
    """
    try:
        with open_unpacked(path) as file:
            bounded: Any = _Bounded(file, path)
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member)
                    if content is None:  # no file
                        continue
                    if member.issparse():  # its holes would be filled in memory
                        raise InputError(f"{path} has a sparse file, {member.name!r:.80}")
                    yield PurePosixPath(member.name), content.read()
    # Not only TarError: it reads numbers and names out of headers.
    except (tarfile.TarError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a whole tar archive: {error}") from error


class _Bounded:
    """A stream that ends in an error past `MAX_ARCHIVE_BYTES`, headers of members included."""

    def __init__(self, file: io.BufferedIOBase, path: Path):
        self._file, self._path, self._left = file, path, MAX_ARCHIVE_BYTES

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise InputError(f"{self._path} unpacks to more than {MAX_ARCHIVE_BYTES} bytes")
        return content


def find_idx(folder: Path, name: str) -> Path:
    """The IDX file `name` in a folder, packed or not, also in the `train-images.idx3` spelling."""
    dotted = name.replace("-idx", ".idx")
    spellings = (f"{name}.gz", name, f"{dotted}.gz", dotted)
    for spelling in spellings:
        if (folder / spelling).is_file():
            return folder / spelling
    require_folder(folder)
    raise InputError(f"no {name} in {folder}: looked for {', '.join(spellings)}")


def read_idx(path: Path, *, md5: str | None = None) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file of unsigned bytes, gzipped or plain (told by content, not by name).

    The format: two zero bytes, a type byte, the number of axes, one big-endian 32-bit size per
    axis, then the values (http://yann.lecun.com/exdb/mnist/, "the IDX file format").

    Args:
        path: The file.
        md5: Of the decompressed bytes; None where nobody published it.
    """
    with open_unpacked(path) as file:
        return _parse_idx(file, path, md5)


def _parse_idx(file: io.BufferedIOBase, path: Path, md5: str | None) -> UInt8[np.ndarray, "..."]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or not 1 <= magic[3] <= 4:
        raise InputError(f"{path} is not an IDX file: it begins with {magic!r}")
    if magic[2] != IDX_UINT8_TYPE:
        raise InputError(f"{path} holds IDX type 0x{magic[2]:02x}; allowed: 0x08 (unsigned bytes)")

    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise InputError(f"{path} is truncated: it ends inside its header")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    promised = math.prod(shape)
    # Beside a size of 0 the others promise nothing, but NumPy has no array of such a shape.
    if math.prod(max(size, 1) for size in shape) > MAX_IDX_BYTES:
        raise InputError(
            f"the header of {path} promises {promised} bytes {shape}; allowed: {MAX_IDX_BYTES}"
        )

    # Grows with what the file really holds, never with what its header says.
    values = bytearray()
    while len(values) <= promised:
        chunk = file.read(min(READ_CHUNK_BYTES, promised + 1 - len(values)))
        if not chunk:
            break
        values += chunk
    if len(values) != promised:
        found = "more" if len(values) > promised else f"only {len(values)}"
        raise InputError(f"the header of {path} promises {promised} bytes {shape}, it has {found}")
    digest = hashlib.md5(magic + sizes)
    digest.update(values)
    found_md5 = digest.hexdigest()
    if md5 not in (None, found_md5):
        raise InputError(
            f"{path} is not the published file: its decompressed bytes have md5 {found_md5}, "
            f"expected {md5}"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: it cannot be read, or is a pipe or a device, which may have no end.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"cannot read {path}: it is no regular file")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def require_folder(folder: Path) -> None:
    """Refuse a path that is no folder."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {state}: give the folder that holds the original files")


def find_pictures(folder: Path) -> list[Path]:
    """Every file with a picture's suffix below a folder, sorted; of links to folders too.

    Hidden files and folders are passed over: archives made on a Mac hold a `._name.jpg`, which is
    no picture, beside each picture.
    """
    require_folder(folder)
    pictures = sorted(_walk(folder, PICTURE_SUFFIXES))
    if not pictures:
        raise InputError(f"no pictures in {folder}: looked for {', '.join(PICTURE_SUFFIXES)}")
    return pictures


def find_others(folder: Path) -> list[Path]:
    """Every file of a kind of picture that is not read, below a folder, sorted."""
    return sorted(_walk(folder, OTHER_SUFFIXES))


def _walk(
    folder: Path, suffixes: tuple[str, ...], above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """Files with these suffixes; a link to a folder that it lies in leads nowhere new."""
    about = folder.stat()
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir():
            yield from _walk(path, suffixes, above | {here})
        elif path.name.lower().endswith(suffixes):
            yield path
