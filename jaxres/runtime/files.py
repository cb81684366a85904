"""Files written whole, and locks."""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

from jaxres.runtime.errors import InputError, os_reason
from jaxres.runtime.screen import say

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a restart, sees the old one or the new one.

    A link stays, and the file that it names is written. What is not a regular file, such as a
    device or a pipe, is written into.

    Raises:
        OSError: it cannot be written, and the old one stands.
    """
    data = content.encode() if isinstance(content, str) else content
    stream = path.absolute().parts[1:2] in (("dev",), ("proc",))  # /dev/stdout may be a file
    if stream or (path.exists() and not path.is_file()):
        with path.open("ab" if stream else "wb", buffering=0) as device:
            rest = memoryview(data)
            while rest:
                rest = rest[device.write(rest) :]
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(target.name + ".tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def require_writable(path: Path) -> None:
    """Refuse what no file can be written to, before the work for it is done.

    Raises:
        InputError: it is a folder, or in a folder that is not there.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"cannot write '{path}'; allowed: a file in a folder that is there")


@contextlib.contextmanager
def lock(path: Path, *, timeout_s: int | None = None) -> Iterator[None]:
    """While no other process holds the lock file; waits for it, for `timeout_s` if given.

    Where the file system has no locks, as some network ones, warns and continues without one.

    Raises:
        filelock.Timeout: it is held.
        OSError: it cannot be made or written to.
    """
    if locks_work(path.parent):
        with filelock.FileLock(path, timeout=-1 if timeout_s is None else timeout_s):
            yield
        return
    say(f"warning: no file locks in '{path.parent}': nothing keeps a second process out of it")
    yield


def locks_work(folder: Path) -> bool:
    """Whether the file system of a folder has locks.

    Raises:
        OSError: the folder cannot be written to.
    """
    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
    return True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While no other process is in here for the same folder; waits for it.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock"):
        yield


def taken_for_the_file(head: bytes) -> str:
    """What the first bytes say came in place of a file that was asked for; mostly nothing."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the file, which `git lfs pull` fetches"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, as an address gives that wants a login or has no such file"
    return ""


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """While a file or folder that the user named is written.

    Raises:
        InputError: the body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write '{path}': {os_reason(error)}") from None
