"""Evaluating a run from its directory alone."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres import compilation, recipe
from jaxres.config import Config, Split
from jaxres.data.pictures import open_split
from jaxres.evaluation.evaluate import Evaluator
from jaxres.host_memory import keep_freed_memory
from jaxres.training.checkpoint import Checkpoints, abstract_like, open_run
from jaxres.training.parallel import make_mesh
from jaxres.training.state import abstract_network


class Opened(NamedTuple):
    """One checkpoint of a run, with the settings to use it here."""

    checkpoints: Checkpoints
    step: int
    config: Config


@contextlib.contextmanager
def open_checkpoint(run_dir: Path, which: str, flags: Sequence[str] = ()) -> Iterator[Opened]:
    """A run's checkpoint (`best`, `last` or a step); `flags` override settings.

    Raises:
        InputError: no such run or checkpoint, a damaged one, or unknown settings.
    """
    keep_freed_memory()
    checkpoints = open_run(run_dir)
    with contextlib.closing(checkpoints):
        step = checkpoints.find(which)
        saved = checkpoints.read_config(step)
        # The devices are those of this machine, and so is the folder.
        train = saved.get("train", {}) | {"devices": None, "compile_cache": "default"}
        config = recipe.from_dict(saved | {"train": train}, flags)
        compilation.use_cache(config.train.compile_cache)
        yield Opened(checkpoints, step, config)


def evaluate(
    run_dir: Path, *, which: str = "best", split: Split = "test", flags: Sequence[str] = ()
) -> dict[str, Any]:
    """Metrics of a checkpoint (`best`, `last` or a step) on a split.

    `flags` override settings, as `--data.dataset mnist`. Gives what `Evaluator` gives and
    `checkpoint` (the step), `split` and `dataset`.

    Raises:
        InputError: no such run or checkpoint, a damaged one, or a data set that is not there.
    """
    with open_checkpoint(run_dir, which, flags) as (checkpoints, step, config):
        pictures = open_split(config, split)
        mesh = make_mesh(config.train.devices)
        net = abstract_network(config, classes=len(pictures.class_names))
        like = {"params": net.params, "stats": net.stats}
        abstract = abstract_like(like, NamedSharding(mesh, P()))
        variables = checkpoints.restore_weights(step, abstract)
        with jax.transfer_guard("disallow"):
            metrics = Evaluator(net, config, pictures, mesh)(variables)
    return {**metrics, "checkpoint": step, "split": split, "dataset": config.data.dataset}
