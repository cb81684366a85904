"""What goes wrong with the files of checkpoints, without the libraries' own tracebacks."""

import errno
import functools
import inspect
import logging
import os
import sys
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from jaxres.errors import brief, sentence

TOLD = ("_SignalingThread", "Handler Commit")  # of writes that failed; the run tells it once
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


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
                raise ValueError(f"'{os.path.join(parent, name)}' is no regular file")


@functools.cache
def silence_stragglers() -> None:
    """Keep reads and writes that are still under way when one has failed from printing tracebacks.

    Orbax closes its event loop at the first failure; the others then find it closed or fail too,
    some of them after the failure has been reported.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        is_task = inspect.iscoroutine(unraisable.object)
        if not is_task and "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    absl_logging.get_absl_logger().addFilter(
        lambda record: not any(part in str(record.msg) for part in TOLD)
    )
