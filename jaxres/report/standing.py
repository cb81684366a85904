"""Words for where a row of a study stands, the same in the terminal and on every page."""

from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]  # of `results.Results`: runs, failed, accuracy, study


def standing(row: Row) -> str:
    """Where a row stands, as `2 done 0.9672, 1 failed`."""
    done = f"{len(row['runs'])} done {row['accuracy']['mean']:.4f}" if row["runs"] else ""
    return ", ".join(filter(None, [done, _failed(row)])) or "not run"


def mean(row: Row) -> str:
    """The mean accuracy, or why there is none."""
    if row["accuracy"]:
        return f"{row['accuracy']['mean']:.4f}"
    return "failed" if row["failed"] else "not run"


def seeds(row: Row) -> str:
    """How many runs a row has, as `2, 1 failed`."""
    return ", ".join(filter(None, [str(len(row["runs"]) or ""), _failed(row)]))


def theirs(row: Row) -> str:
    """The study's own accuracy, where it is of the test split or said to be of validation."""
    if "validation_accuracy" in row["study"]:
        return f"{row['study']['validation_accuracy']} (validation)"
    return str(row["study"].get("accuracy", ""))


def _failed(row: Row) -> str:
    return f"{len(row['failed'])} failed" if row["failed"] else ""
