"""The run directory: whose it is, what it was made with, and files written whole."""

import contextlib
import fcntl
import json
from pathlib import Path
from typing import Any

import yaml

from jaxres.config import Config, differing_keys, to_dict
from jaxres.errors import InputError
from jaxres.training.checkpoint import Checkpoints

# What a run killed in its first moments can leave without its config.yaml.
FIRST_MADE = {"lock", "checkpoints", "config.yaml.tmp"}


def open_run(run_dir: Path, config: Config) -> tuple[Checkpoints, contextlib.ExitStack]:
    """Take a run directory, new or to be gone on with: its checkpoints, and what closes it.

    Raises:
        InputError: it is something else, in use, or was made with other settings.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"--output-dir is '{run_dir}', which is a file; allowed: a folder")
    is_run = (run_dir / "config.yaml").is_file()
    if run_dir.is_dir() and not is_run and {path.name for path in run_dir.iterdir()} - FIRST_MADE:
        raise InputError(
            f"--output-dir is '{run_dir}', which holds other files; "
            "allowed: a new or empty folder, or that of a run to go on with"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / "lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write to --output-dir '{run_dir}': {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InputError(f"another process is training in '{run_dir}'") from None
    with contextlib.ExitStack() as opened:
        opened.callback(lock.close)
        checkpoints = Checkpoints(run_dir / "checkpoints", config.checkpoint)
        opened.callback(checkpoints.close)
        if (latest := checkpoints.latest()) is not None:
            _check_same(config, checkpoints.read(latest, "config"), run_dir)
        write_whole(run_dir / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
        return checkpoints, opened.pop_all()


def _check_same(config: Config, saved: dict[str, Any], run_dir: Path) -> None:
    """Refuse to go on with settings that contradict the checkpoint's."""
    differing = differing_keys(to_dict(config), saved)
    if not differing:
        return
    listed = "; ".join(
        f"{key} is {ours}, was {theirs}" for key, (ours, theirs) in differing.items()
    )
    raise InputError(
        f"'{run_dir}' holds a run with other settings ({listed}): "
        "give the same settings or another --output-dir"
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or a restart, sees the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def keep_rows(path: Path, last_step: int) -> None:
    """Drop rows of `metrics.jsonl` after `last_step`, and a half-written last line.

    So no step appears twice when a killed run goes on from its last checkpoint.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if row["step"] <= last_step:
            kept.append(line)
    write_whole(path, "".join(kept))
