"""What one input does to a reader, judged: accepted, refused, or something that must not happen."""

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxres.runtime.errors import InputError, sentence

# An input of some kilobytes must do with less than this beyond what the process holds already.
ALLOWED_MIB = 768
# Larger: libraries reserve space for the stacks of threads, and wait for ever where they get none.
ADDRESS_SPACE_MIB = 6 << 10
SECONDS = 10.0
STUCK_SECONDS = 60  # in a library, where no alarm is heard: the process ends
BAD = ("unhandled", "hang", "partial", "allocation", "wrong", "crash")
OUT_OF_MEMORY = ("unable to allocate", "insufficient memory", "failed to allocate", "bad_alloc")


class Outcome(NamedTuple):
    """What happened: `accepted`, `refused` or one of BAD, with what it takes to see why."""

    kind: str
    detail: str
    seconds: float
    peak_mib: float
    content: Any = None  # what the reader gave, where it accepted


class TimedOut(BaseException):
    """Not an Exception, so that no reader takes it for damage of a file."""


def judge(read: Callable[[], Any], output: Path, errors: Path) -> Outcome:
    """Run a reader on one input, within limits of time and memory.

    Args:
        read: Reads the input and returns its content. Raises InputError where it refuses.
        output: The folder that the reader may write to: empty again where it refuses.
        errors: Where the process's standard error goes while it runs.
    """
    said = errors.stat().st_size
    reset_peak()
    before = _status_mib("VmRSS")
    began = time.perf_counter()
    with _limits():
        kind, detail, content = _classified(read)
    seconds = time.perf_counter() - began
    peak_mib = max(0.0, _status_mib("VmHWM") - before)
    if kind in ("accepted", "refused"):
        left = leftovers(output, accepted=kind == "accepted")
        printed = errors.read_bytes()[said:].decode(errors="replace")
        if left:
            kind, detail = "partial", f"left behind: {', '.join(left)[:500]}"
        elif "Traceback (most recent call last)" in printed:
            kind, detail = "unhandled", f"printed: {printed[-3000:]}"
        elif peak_mib > ALLOWED_MIB:
            kind, detail = "allocation", f"took {peak_mib:.0f} MiB"
    return Outcome(kind, detail, seconds, peak_mib, content)


def _classified(read: Callable[[], Any]) -> tuple[str, str, Any]:
    try:
        return "accepted", "", read()
    except InputError as error:
        message = sentence(error)
        if _is_out_of_memory(error):
            return "allocation", message, None
        if not message:
            return "unhandled", "an error without a word", None
        return "refused", message, None
    except TimedOut:
        return "hang", _last_calls(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        kind = "allocation" if _is_out_of_memory(error) else "unhandled"
        return kind, _last_calls(), None


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or any(
            words in str(error).lower() for words in OUT_OF_MEMORY
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _last_calls() -> str:
    return traceback.format_exc(limit=-12, chain=False)


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """An alarm, and no more address space than the process has and ADDRESS_SPACE_MIB on top."""

    def ring(number: int, frame: Any) -> None:
        del number, frame
        raise TimedOut

    before = signal.getsignal(signal.SIGALRM)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        signal.signal(signal.SIGALRM, ring)
        most = int(_status_mib("VmSize") + ADDRESS_SPACE_MIB) << 20
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # also if the alarm rings at the last moment: what is compiled later needs the space
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def reset_peak() -> None:
    """Have the kernel measure this process's peak memory from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_mib(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def leftovers(folder: Path, *, accepted: bool) -> list[str]:
    """What a reader should not have left: anything at all or, where it accepted, anything partial.

    Not the folder of datasets itself, nor an empty one in it.
    """
    found = []
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            partial = name.startswith(".") or name.endswith(".tmp") or "incomplete" in name
            if partial or (not accepted and name in files):
                found.append(os.path.relpath(os.path.join(parent, name), folder))
    return found


@contextlib.contextmanager
def standard_error_in(path: Path) -> Iterator[None]:
    """Send file descriptor 2, to which libraries print too, to a file."""
    sys.stderr.flush()
    kept = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
