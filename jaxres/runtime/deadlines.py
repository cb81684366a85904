"""A time limit for calls that nothing can interrupt."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def deadline(timeout_s: int, problem: str, *, status: int) -> Iterator[None]:
    """End the process, with one line and this exit status, if the body takes longer."""

    def late() -> None:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        exit_now(status)

    timer = threading.Timer(timeout_s, late)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def exit_now(status: int) -> None:
    """End the process at once: no waiting for threads, peers or exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)
