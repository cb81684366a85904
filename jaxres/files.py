"""Files written whole."""

import contextlib
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
