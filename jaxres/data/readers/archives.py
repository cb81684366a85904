"""Files that may be gzipped, and tar archives: read with a limit, whatever their headers say."""

import contextlib
import gzip
import io
import stat
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from jaxres.runtime.errors import InputError, unreadable

GZIP_MAGIC = b"\x1f\x8b"
# Far above the largest published archive (235 MB unpacked), for the same reason.
MAX_ARCHIVE_BYTES = 512 << 20


@contextlib.contextmanager
def open_unpacked(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file to be read, unpacked if it is gzipped (known by its content, not its name).

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
        raise unreadable(path, error) from error


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


def size_of(path: Path) -> int:
    """A file's size in bytes.

    Raises:
        InputError: it is not there, as where a broken link leads, or is a pipe or a device, which
            may have no end.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(about.st_mode):
        raise InputError(f"cannot read {path}: it is not a regular file")
    return about.st_size


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        InputError: it cannot be read, or is not a regular file.
    """
    size_of(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
