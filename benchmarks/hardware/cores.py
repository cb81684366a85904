"""Keeping this process to one core, for figures per core."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2

CAN_RESTRICT = hasattr(os, "sched_setaffinity")
WHY_NOT = "this platform has no os.sched_setaffinity"


def count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if CAN_RESTRICT else os.cpu_count() or 1


@contextlib.contextmanager
def one() -> Iterator[int | None]:
    """Run every thread of this process, and those it starts, on its first core.

    Gives the number of cores, None where the platform cannot restrict them. OpenCV is kept to one
    thread with it: two on one core would wait for each other.
    """
    if not CAN_RESTRICT:
        yield None
        return
    allowed = {thread: os.sched_getaffinity(thread) for thread in _threads()}
    opencv_threads = cv2.getNumThreads()
    core = min(os.sched_getaffinity(0))
    try:
        _restrict({thread: {core} for thread in allowed})
        cv2.setNumThreads(1)
        yield 1
    finally:
        cv2.setNumThreads(opencv_threads)
        # Those started meanwhile inherited the one core.
        everything = set().union(*allowed.values())
        _restrict({thread: allowed.get(thread, everything) for thread in _threads()})


def _threads() -> list[int]:
    """Affinity is each thread's own on Linux; elsewhere 0 stands for the whole process."""
    tasks = Path("/proc/self/task")
    return [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]


def _restrict(cores: dict[int, set[int]]) -> None:
    for thread, allowed in cores.items():
        with contextlib.suppress(ProcessLookupError):  # it may have ended
            os.sched_setaffinity(thread, allowed)
