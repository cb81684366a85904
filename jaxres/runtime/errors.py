"""The one error a user can cause, the nearest-name hint that goes with it, and how a run ends."""

import difflib
import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar


class InputError(ValueError):
    """Something given from outside (recipe, flag, file, dataset, checkpoint) cannot be used.

    The message is one sentence with the value given and the values allowed; the command line
    prints it and exits with status 2.
    """


class TrainingFailed(RuntimeError):  # noqa: N818
    """Training cannot continue; the message says at which step and what is kept."""


class Interrupted(Exception):  # noqa: N818
    """A signal asked the run to stop, and its state is saved."""


T = TypeVar("T")
# Of a disk that does not take more.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
MOST_CHARACTERS, BRIEF_CHARACTERS = 2000, 300


def sentence(error: BaseException) -> str:
    """An error's message as one printable line, whatever was given and is repeated in it."""
    line = " ".join(str(error).split())
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    if len(printable) <= MOST_CHARACTERS:
        return printable
    half = MOST_CHARACTERS // 2
    return f"{printable[:half]} ... {printable[-half:]}"


def brief(error: BaseException) -> str:
    """What a library's error says, to stand within a sentence; its kind where it says nothing."""
    return sentence(error)[:BRIEF_CHARACTERS] or type(error).__name__


def os_reason(error: Exception) -> str:
    """What the system says of a file or folder; a library's error may lack the system's words."""
    return getattr(error, "strerror", None) or brief(error)


def unreadable(path: Path, error: OSError) -> InputError:
    """An error for a file or folder that the system does not give."""
    return InputError(f"cannot read {path}: {os_reason(error)}")


def unknown_name(
    kind: str, given: str, allowed: Iterable[str], *, shown: str | None = None
) -> InputError:
    """An error for a name that is in no registry: what was given, the nearest, what is allowed.

    Where those are too many to list, `shown` says what they are.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return InputError(f"unknown {kind} '{given}'{hint} (allowed: {shown or ', '.join(names)})")


def find(kind: str, name: str, table: Mapping[str, T]) -> T:
    """What a registry has under a name.

    Raises:
        InputError: there is none; with the nearest name and all that are allowed.
    """
    if name not in table:
        raise unknown_name(kind, name, table)
    return table[name]
