"""Loading and evaluating a run from its directory alone."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float32

from jaxres import compilation, recipe
from jaxres.config import Config, Split
from jaxres.data.pictures import Pictures, open_split
from jaxres.errors import InputError
from jaxres.evaluation.evaluate import Evaluator
from jaxres.host_memory import keep_freed_memory
from jaxres.models.pure import Net
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


class Loaded(NamedTuple):
    """A checkpoint's network with its weights on the devices, and pictures to show it."""

    run_dir: Path
    step: int
    config: Config
    mesh: Mesh
    net: Net  # with shapes in place of weights
    variables: dict[str, Any]  # `params` and `stats`
    pictures: Pictures


def load(
    run_dir: Path, *, which: str = "best", split: Split = "test", flags: Sequence[str] = ()
) -> Loaded:
    """A checkpoint (`best`, `last` or a step) and a split; `flags` override settings.

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
    return Loaded(run_dir, step, config, mesh, net, variables, pictures)


def evaluate(
    run_dir: Path, *, which: str = "best", split: Split = "test", flags: Sequence[str] = ()
) -> dict[str, Any]:
    """Metrics of a checkpoint on a split; arguments and errors as of `load`.

    Gives what `Evaluator` gives and `checkpoint` (the step), `split` and `dataset`.
    """
    run = load(run_dir, which=which, split=split, flags=flags)
    with jax.transfer_guard("disallow"):
        metrics = Evaluator(run.net, run.config, run.pictures, run.mesh)(run.variables)
    return {**metrics, "checkpoint": run.step, "split": split, "dataset": run.config.data.dataset}


def require_finite(probabilities: Float32[np.ndarray, "n classes"], run: Loaded) -> None:
    """Refuse weights that give no probabilities.

    Raises:
        InputError: one is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise InputError(
            f"checkpoint {run.step} of '{run.run_dir}' gives probabilities that are not finite: "
            "its weights cannot be used"
        )
