"""The rows of `metrics.jsonl`: reading them, and keeping those of a run that is resumed."""

import json
from pathlib import Path
from typing import Any

from jaxres.runtime.errors import InputError, unreadable
from jaxres.runtime.files import write_whole


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows, without lines that a killed run left incomplete; none if there is no file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise unreadable(path, error) from None
    return [row for line in text.splitlines() if (row := _parsed(line)) is not None]


def keep_rows(path: Path, last_step: int, *, evaluated: bool = True) -> None:
    """Drop rows of `metrics.jsonl` after `last_step`, test rows, and incomplete lines.

    The evaluation of `last_step` too, unless its checkpoint knows that it was `evaluated`.

    So no step appears twice when a killed run resumes from its last checkpoint, and a run that
    is evaluated again has one test row.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise InputError(f"'{path}' is not a regular file: remove it to resume the run")
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        row = _parsed(line)
        if row is None or row.get("split") == "test":
            continue
        outdated = row.get("split") == "validation" and not evaluated
        if _is_up_to(row, last_step - outdated):
            kept.append(line + "\n")
    write_whole(path, "".join(kept))


def _parsed(line: str) -> dict[str, Any] | None:
    """A line's row, None where it is none."""
    try:
        row = json.loads(line)
    # Not only JSONDecodeError: a number may have more digits than Python reads.
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _is_up_to(row: dict[str, Any], last_step: int) -> bool:
    """Whether a row has a step, and one that is not after the last."""
    step = row.get("step")
    return type(step) is int and step <= last_step
