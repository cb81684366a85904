"""What a run directory says of its run, as plain values for tables, curves and JSON."""

import json
from pathlib import Path
from typing import Any

from jaxres import recipe
from jaxres.config import flatten, to_dict
from jaxres.errors import InputError

Record = dict[str, Any]
LOGGED = ("step", "epoch", "loss", "accuracy")
SWEEP = "sweep.json"
PER_CLASS = ("precision", "recall", "f1", "support")


def read(run_dir: Path) -> Record:
    """The settings, curves and, of a run that has ended, the summary of a run directory.

    Gives `run_dir`, `settings` (by `section.key`), `picture_side` (pixels), `train` and
    `validation` (rows of LOGGED), what `summary.json` holds, whose `test` is missing while the run
    goes on, and `sweep`: what `read_sweep` gives.

    Raises:
        InputError: it is no run directory of `jaxres train`, or a file of it is damaged.
    """
    settings, metrics, summary = (
        run_dir / name for name in ("config.yaml", "metrics.jsonl", "summary.json")
    )
    if not settings.is_file() or not metrics.is_file():
        raise InputError(
            f"'{run_dir}' is no run directory: it has no config.yaml and metrics.jsonl"
        )
    config = recipe.load(settings, prog="config.yaml")
    try:
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        curves = {
            split: [{key: row[key] for key in LOGGED} for row in rows if row["split"] == split]
            for split in ("train", "validation")
        }
        ended = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
        if ended:
            _require_whole(ended)
        return {
            "run_dir": str(run_dir),
            "settings": flatten(to_dict(config)),
            "picture_side": config.data.picture_side,
            **curves,
            **dict(ended),
            "sweep": read_sweep(run_dir),
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the files of '{run_dir}' are damaged ({error!r:.200})") from None


def read_sweep(run_dir: Path) -> dict[str, Any] | None:
    """What `jaxres evaluate RUN --sweep ... -o RUN/sweep.json` wrote, None if it was not asked.

    Raises:
        InputError: the file is damaged.
    """
    path = run_dir / SWEEP
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [(float(row["value"]), float(row["accuracy"])) for row in found["results"]]
        if not rows or not isinstance(found["sweep"], str) or not isinstance(found["command"], str):
            raise ValueError("no setting, command or results")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged ({error!r:.200})") from None
    return found


def _require_whole(summary: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where a summary lacks what tables are made of."""
    test = summary["test"]
    scores = [test["accuracy"], test["loss"], test["examples"], test["checkpoint"]]
    scores += [summary[key] for key in ("parameters", "wall_s")]
    scores += [one[key] for one in test["per_class"] for key in PER_CLASS]
    scores += [count for row in test["confusion"] for count in row]
    if not all(type(each) in (int, float) for each in scores):
        raise ValueError("a score in summary.json is no number")
    classes = len(test["per_class"])
    if [len(row) for row in test["confusion"]] != [classes] * classes:
        raise ValueError("the confusion matrix in summary.json is not square")
    for key in ("model", "command", "date"):
        if not isinstance(summary[key], str):
            raise ValueError(f"{key} in summary.json is no text")
    for key in ("devices", "versions"):
        dict(summary[key])
