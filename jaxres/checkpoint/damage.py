"""What goes wrong with the files of checkpoints, without the libraries' own tracebacks."""

import os
from pathlib import Path

from jaxres.runtime.errors import DISK, brief, sentence


def reason(error: Exception) -> str:
    """What an error says, or its kind; of a disk that does not take more, the system's words."""
    text = sentence(error)
    words = (os.strerror(code) for code in DISK)
    return next((each for each in words if each in text), brief(error))


def require_regular_files(folder: Path) -> None:
    """Refuse pipes and devices, which may have no end, and links to nowhere.

    Raises:
        ValueError: there is one.
    """
    for parent, _, files in os.walk(folder):
        for name in files:
            if not os.path.isfile(os.path.join(parent, name)):
                raise ValueError(f"'{os.path.join(parent, name)}' is not a regular file")
