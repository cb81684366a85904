"""Files written whole."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from jaxres.errors import InputError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a restart, sees the old one or the new one.

    Raises:
        OSError: it cannot be written, and the old one stands.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
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
def locked(folder: Path) -> Iterator[None]:
    """While no other process is in here for the same folder; waits for it.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """While a file or folder that the user named is written.

    Raises:
        InputError: the body raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from None
