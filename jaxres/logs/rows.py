"""The rows of `metrics.jsonl` that a resumed run keeps."""

import json
from pathlib import Path
from typing import Any

from jaxres.runtime.errors import InputError
from jaxres.runtime.files import write_whole


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
        try:
            row = json.loads(line)
        # Not only JSONDecodeError: a number may have more digits than Python reads.
        except (ValueError, RecursionError):
            continue
        if not isinstance(row, dict) or row.get("split") == "test":
            continue
        outdated = row.get("split") == "validation" and not evaluated
        if _is_up_to(row, last_step - outdated):
            kept.append(line + "\n")
    write_whole(path, "".join(kept))


def _is_up_to(row: dict[str, Any], last_step: int) -> bool:
    """Whether a row has a step, and one that is not after the last."""
    step = row.get("step")
    return type(step) is int and step <= last_step
