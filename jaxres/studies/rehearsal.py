"""A study in a few steps of every row, so that what would stop a row is known before it costs."""

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxres.config import recipe
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say
from jaxres.studies.reproduce import Reproduction
from jaxres.studies.results import Found
from jaxres.studies.study import Row, Study

STEPS = 3


def rehearse(
    study: Study,
    *,
    only: str | None = None,
    devices: int | None = None,
    deadline: float = math.inf,
) -> dict[str, str]:
    """Run every row, or one after those it starts from, in a few steps; nothing is kept.

    A row trains three steps, or one in each epoch up to its last unfreezing, is evaluated on a
    batch of each split and drawn for its page. Gives what stops each row, empty for those that
    nothing stops. No row begins after the `deadline`, by `time.monotonic()`.

    Raises:
        InputError: no row has the name `only`.
    """

    def on_update(found: Found) -> None:
        rows = found["rows"]
        done = [name for name, row in rows.items() if row["runs"] or row["failed"]]
        say(f"rehearsed {len(done)} of {len(asked)} rows")

    short = dataclasses.replace(study, rows=tuple(map(shortened, study.rows)))
    with tempfile.TemporaryDirectory(prefix="jaxres-rehearsal-") as folder:
        runs, results = Path(folder, "runs"), Path(folder, "results.json")
        made = Reproduction(short, runs, results, devices, deadline)
        asked = made.asked(only)
        rows = made.run(only=only, seeds=1, keep=False, on_update=on_update)["rows"]
    return {row.name: _problem(rows[row.name]) for row in asked}


def _problem(entry: Mapping[str, Any]) -> str:
    """What stopped a row, by its entry in the results."""
    if entry["runs"]:
        return ""
    return entry["failed"]["0"]["problem"] if entry["failed"] else "the time was up"


def shortened(row: Row) -> Row:
    """The row with a few steps and examples; as it is if its recipe is wrong."""
    try:
        config = recipe.load(row.recipe, row.flags)
    except InputError:  # reported when the row is run
        return row
    epochs = 1 + max((epoch for epoch, _ in config.transfer.unfreezing()), default=0)
    batch = config.data.batch_size
    limits = {
        "--train.epochs": epochs,
        "--train.limit-train-examples": batch * (STEPS if epochs == 1 else 1),
        "--train.limit-eval-examples": batch,
        "--train.evaluate-every-epochs": epochs,
    }
    words = (str(word) for limit in limits.items() for word in limit)
    return dataclasses.replace(row, flags=(*row.flags, *words))
