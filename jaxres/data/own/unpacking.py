"""Archives among a dataset's original files, unpacked beside the dataset that is prepared."""

import errno
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxres.runtime.errors import DISK, InputError, brief
from jaxres.runtime.screen import say

FOLDER = "unpacked"
SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip")
# Images hardly shrink when they are packed: what unpacks to more is not what it says.
MOST_TIMES = 20
MOST_ANYWAY = 1 << 30  # bytes
MOST_NESTED = 8
NOT_ITS_FAULT = (*DISK, errno.EACCES, errno.EPERM)  # of an archive that cannot be unpacked
# Python's own care in unpacking, on top of ours; Python 3.11 has it since 3.11.4.
FILTER: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def unpacked(root: Path, stage: Path, *, shown: bool) -> Path:
    """The folder itself or, if it is or holds archives, one of links to it that has them unpacked.

    An archive becomes a folder of its name, as `cats.tar` the folder `cats`, and so do those within
    it. What an interrupted preparation had unpacked is used again.

    Raises:
        InputError: one is damaged, or unpacks to much more than it holds.
    """
    found = [root] if root.is_file() else _archives(root)
    if not found:
        return root
    place, whole = stage / FOLDER, stage / f"{FOLDER}.whole"
    if whole.exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if root.is_file():
        _unpack(root, place, shown=shown)
    else:
        _link(root, place, shown=shown)
    whole.touch()
    return place


def places(path: Path) -> Sequence[Path]:
    """The folders that archives were unpacked to above a file."""
    return [parent for parent in path.parents if parent.name == FOLDER]


def _archives(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".") and path.is_file()
    )


def _link(root: Path, place: Path, *, shown: bool) -> None:
    """A folder's entries as links, its archives unpacked; folders without any are one link."""
    for entry in sorted(root.iterdir()):
        if entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            _unpack(entry, place / _stem(entry.name), shown=shown)
        elif entry.is_dir() and _archives(entry):
            (place / entry.name).mkdir()
            _link(entry, place / entry.name, shown=shown)
        else:
            (place / entry.name).symlink_to(entry.absolute())


def _stem(name: str) -> str:
    suffix = next(suffix for suffix in SUFFIXES if name.lower().endswith(suffix))
    return name[: -len(suffix)]


def _unpack(archive: Path, place: Path, *, shown: bool, depth: int = 0) -> None:
    """An archive's files into a folder, and the archives among them into folders of their own."""
    if depth > MOST_NESTED:
        raise InputError(f"{archive} lies in {depth} archives, one in the other")
    if depth == 0:
        say(f"unpacking {archive}", shown=shown)
    place.mkdir(parents=True, exist_ok=True)
    most = max(MOST_ANYWAY, MOST_TIMES * archive.stat().st_size)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _require_fits(archive, sum(each.file_size for each in packed.infolist()), most)
                packed.extractall(place)
        else:
            _extract_tar(archive, place, most)
    except InputError:
        raise
    # The readers raise whatever their layers met: OSError, IndexError, zlib.error, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NOT_ITS_FAULT:
            raise
        raise InputError(f"{archive} cannot be unpacked: {brief(error)}") from error
    for inner in _archives(place):
        _unpack(inner, inner.with_name(_stem(inner.name)), shown=shown, depth=depth + 1)
        inner.unlink()


def _extract_tar(archive: Path, place: Path, most: int) -> None:
    size = 0

    def regular(packed: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        nonlocal size
        for member in packed:
            size += member.size
            _require_fits(archive, size, most)
            if member.isfile() or member.isdir() or member.islnk():
                yield _within(archive, member)

    with tarfile.open(archive) as packed:
        packed.extractall(place, members=regular(packed), **FILTER)


def _within(archive: Path, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that stays in the folder it is unpacked to, with plain rights, of this user."""
    target = PurePosixPath(member.linkname if member.islnk() else "")
    if ".." in (*PurePosixPath(member.name).parts, *target.parts) or target.is_absolute():
        raise InputError(f"{archive} has a file outside of it, {member.name!r:.80}")
    member.name = member.name.lstrip("/")
    member.mode = 0o755 if member.isdir() else 0o644
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    return member


def _require_fits(archive: Path, size: int, most: int) -> None:
    if size > most:
        raise InputError(
            f"{os.fspath(archive)} unpacks to more than {most:,} bytes, {MOST_TIMES} times its size"
        )
