"""What is taken as the path of a file or folder."""

import os
import re
import sys
import tempfile
from pathlib import Path

from jaxres.runtime.errors import InputError

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4000
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+")  # not Windows's C:/


def require_path(key: str, path: str, *, folder: bool = True) -> None:
    """Refuse what no file system takes as a path, and addresses, of which it would make a folder.

    `Path` has made s3:/bucket of s3://bucket. The names of a `folder` must be UTF-8, as those that
    write and read checkpoints in it want them.

    Raises:
        InputError: it is one.
    """
    if (address := ADDRESS.match(path)) is not None:
        raise InputError(
            f"{key} is '{address[1]}//{path[address.end() :]}', an address; allowed: a path of "
            "this machine's file systems (a bucket can be mounted as one)"
        )
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    names = encoded.split(b"/")
    too_long = len(encoded) > MAX_PATH_BYTES or max(map(len, names)) > MAX_NAME_BYTES
    if b"\0" in encoded or too_long:
        raise InputError(
            f"{key} is {path!r:.80}; allowed: a path of at most {MAX_PATH_BYTES} bytes, "
            f"{MAX_NAME_BYTES} of them a name, without zero bytes"
        )
    text = encoded.decode(errors="backslashreplace")
    if folder and text != path:
        raise InputError(f"{key} is '{text}'; allowed: a path whose names are UTF-8")


def caches() -> Path:
    """The user's folder for caches: XDG's, or macOS's own.

    Of a user who has no home it is in the temporary folder.

    Raises:
        PermissionError: that is another user's.
    """
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:  # no $HOME, and no entry for the user
        folder = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError(f"'{folder}' is another user's") from None
        return folder
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
