"""Loading a checkpoint's weights from a run directory, also while the run is still training."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import jax

from jaxres.checkpoint.reader import open_run
from jaxres.runtime.errors import InputError

PyTree = Any
TRIES = 5  # to read a checkpoint that a run may remove meanwhile


@dataclasses.dataclass(frozen=True)
class Saved:
    """What is read of a checkpoint to use its weights."""

    run_dir: Path
    step: int
    config: dict[str, dict[str, Any]]
    progress: dict[str, Any]
    weights: PyTree  # `params` and `stats` to evaluate


def read_run(run_dir: Path, which: str, sharding: jax.sharding.Sharding, *, key: str = "") -> Saved:
    """A run's checkpoint (`best`, `last` or a step), with its weights placed by `sharding`.

    All of it is read at once: a run that is still training may remove it at any time. If it does so
    meanwhile, the one that `which` then means is taken. `key` is the setting that names the run.

    Raises:
        InputError: no such run or checkpoint, or a damaged one.
    """
    with contextlib.closing(open_run(run_dir, key=key)) as checkpoints:
        for left in reversed(range(TRIES)):
            step = checkpoints.find(which)
            try:
                return Saved(
                    run_dir=checkpoints.folder.parent,
                    step=step,
                    config=checkpoints.read_config(step),
                    progress=checkpoints.read(step, "progress"),
                    weights=checkpoints.read_weights(step, sharding),
                )
            except InputError:
                if not left or not checkpoints.is_removed(step):
                    raise
                checkpoints.reload()
    raise AssertionError  # the last try returns or raises
