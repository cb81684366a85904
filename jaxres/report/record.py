"""What a run directory says of its run, as plain values for tables, curves and JSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxres.config import Config, flatten, recipe, to_dict
from jaxres.data.datasets.splits import SPLITS
from jaxres.models import count
from jaxres.models.build import abstract_network
from jaxres.runtime.errors import InputError

Record = dict[str, Any]
LOGGED = ("step", "epoch", "loss", "accuracy")
SWEEP = "sweep.json"
START = "start.yaml"  # the settings of the run whose weights this one started from
PER_CLASS = ("precision", "recall", "f1", "support")


def read(run_dir: Path) -> Record:
    """The settings, curves and, of a run that has ended, the summary of a run directory.

    Gives `run_dir`, `settings` (by `section.key`), `image_size` (pixels), `train` and
    `validation` (rows of LOGGED), what `summary.json` holds, whose `test` is missing while the run
    goes on, `gflop` (of one image's forward pass) where there is a `test`, `sweep`: what
    `read_sweep` gives, and, where there is a START, those settings as `start`.

    Raises:
        InputError: it is not a run directory of `jaxres train`, or a file of it is damaged.
    """
    settings, metrics, summary = (
        run_dir / name for name in ("config.yaml", "metrics.jsonl", "summary.json")
    )
    if not settings.is_file() or not metrics.is_file():
        raise InputError(
            f"'{run_dir}' is not a run directory: it has no config.yaml and metrics.jsonl"
        )
    config = recipe.load_saved(settings)
    try:
        rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        curves = {
            split: [{key: row[key] for key in LOGGED} for row in rows if row["split"] == split]
            for split in ("train", "validation")
        }
        ended = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
        found = {
            "run_dir": str(run_dir),
            "settings": flatten(to_dict(config)),
            "picture_side": config.data.image_size,
            **curves,
            **dict(ended),
        }
        if ended:
            _require_ended(found)
            found["gflop"] = gflop(config, classes=len(ended["test"]["per_class"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the files of '{run_dir}' are damaged ({error!r:.200})") from None
    found["sweep"] = read_sweep(run_dir)
    if (run_dir / START).is_file():
        found["start"] = flatten(to_dict(recipe.load_saved(run_dir / START)))
    return found


def gflop(config: Config, *, classes: int) -> float:
    """GFLOP of one image's forward pass in a run's network, counted as by `models.count`."""
    net = abstract_network(config, classes=classes)
    return count.count_net(config.model.name, net, config.data.image_size).gflop


def require_whole(found: Any) -> None:
    """Check what should be what `read` gives for a run that has ended.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not.
    """
    _require_ended(found)
    if not isinstance(found["run_dir"], str) or found["picture_side"] < 1:
        raise ValueError("no run_dir or picture_side")
    if not all("." in key for key in dict(found["settings"])):
        raise ValueError("settings are not by section.key")
    for split in ("train", "validation"):
        _require_numbers(row[key] for row in found[split] for key in LOGGED)
    _require_numbers([found.get("gflop", 0)])  # that older results lack
    if found["sweep"] is not None:
        _require_sweep(found["sweep"])


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
        _require_sweep(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged ({error!r:.200})") from None
    return found


def _require_sweep(found: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where a sweep lacks what a matrix is made of."""
    _require_numbers(row["accuracy"] for row in found["results"])
    words = [found["sweep"], found["command"], *(row["value"] for row in found["results"])]
    if len(words) < 3 or not all(isinstance(each, str) for each in words):
        raise ValueError("no setting, command or values")


def _require_numbers(values: Iterable[Any]) -> None:
    if not all(type(each) in (int, float) for each in values):
        raise ValueError("what should be a number is none")


def _require_ended(summary: dict[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError where a summary lacks what tables are made of."""
    test = summary["test"]
    scores = [test["accuracy"], test["loss"], test["examples"], test["checkpoint"]]
    scores += [summary[key] for key in ("parameters", "wall_s")]
    scores += [one[key] for one in test["per_class"] for key in PER_CLASS]
    scores += [count for row in test["confusion"] for count in row]
    _require_numbers(scores)
    classes = len(test["per_class"])
    if [len(row) for row in test["confusion"]] != [classes] * classes:
        raise ValueError("the confusion matrix is not square")
    for key in ("model", "command", "date"):
        if not isinstance(summary[key], str):
            raise ValueError(f"{key} is not text")
    for key in ("devices", "versions"):
        dict(summary[key])
    if "data" in summary:  # which older results lack
        splits = [summary["data"][split] for split in SPLITS]
        _require_numbers(each["examples"] for each in splits)
        if not all(isinstance(each["checksum"], str) for each in splits):
            raise ValueError("a checksum is not text")
        if not isinstance(summary["data"]["partial"], str | None):
            raise ValueError("partial is not text")
