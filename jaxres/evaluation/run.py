"""Loading and evaluating a run from its directory alone."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from jaxtyping import Float32

from jaxres.checkpoint.loading import read_run
from jaxres.checkpoint.progress import describe
from jaxres.checkpoint.reader import open_run
from jaxres.checkpoint.shapes import require_shapes
from jaxres.config import Config, Split, flatten, recipe, to_dict
from jaxres.config.data import INSTEAD
from jaxres.data.composed import ComposedDataset, open_split
from jaxres.data.inputs import normalisation
from jaxres.distributed.mesh import make_mesh, replicate
from jaxres.evaluation.evaluator import Evaluator, SplitEvaluator
from jaxres.evaluation.metrics import further_metrics
from jaxres.evaluation.step import make_outputs_step
from jaxres.models.build import abstract_network
from jaxres.models.pure import Net
from jaxres.runtime import compilation
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say, track

SWEPT = ("accuracy", "loss", "examples")  # what a sweep tells of each value


class Opened(NamedTuple):
    """One checkpoint of a run, with the settings to use it here."""

    run_dir: Path  # that `jaxres train` wrote
    step: int
    config: Config
    weights: dict[str, Any]  # `params` and `stats` to evaluate
    data: dict[str, Any]  # what is known of the splits it was trained on
    classes: tuple[str, ...]  # what the labels stand for; empty: an older run
    multi_label: bool  # whether an image may be of several

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for an image."""
        return self.weights["params"]["head"]["linear"]["kernel"].shape[-1]

    @property
    def folder(self) -> Path:
        """Of the checkpoint itself."""
        return self.run_dir / "checkpoints" / str(self.step)


def open_checkpoint(run_dir: Path, which: str, flags: Sequence[str] = ()) -> Opened:
    """A run's checkpoint (`best`, `last` or a step); `flags` override settings.

    See `read_run`.

    Raises:
        InputError: no such run or checkpoint, a damaged one, or unknown settings.
    """
    saved = read_run(run_dir, which, SingleDeviceSharding(jax.devices()[0]))
    # The devices are those of this machine, and so is the folder.
    train = saved.config.get("train", {}) | {"devices": None, "compile_cache": "default"}
    config = recipe.from_dict(saved.config | {"train": train}, flags)
    compilation.use_cache(config.train.compile_cache)
    return Opened(
        run_dir=saved.run_dir,
        step=saved.step,
        config=config,
        weights=saved.weights,
        data=saved.progress.get("data", {}),
        classes=tuple(saved.progress.get("classes", ())),
        multi_label=saved.progress.get("multi_label", False),
    )


class Loaded(NamedTuple):
    """A checkpoint's network with its weights on the devices, and images to show it."""

    run_dir: Path
    step: int
    config: Config
    mesh: Mesh
    net: Net  # with shapes in place of weights
    variables: dict[str, Any]  # `params` and `stats`
    dataset: ComposedDataset


def load(
    run_dir: Path, *, which: str = "best", split: Split = "test", flags: Sequence[str] = ()
) -> Loaded:
    """A checkpoint (`best`, `last` or a step) and a split; `flags` override settings.

    Raises:
        InputError: no such run or checkpoint, a damaged one, or a dataset that is not there.
    """
    opened = open_checkpoint(run_dir, which, flags)
    dataset = open_split(opened.config, split)
    _tell_other_data(opened, dataset)
    return restored(opened, opened.config, dataset)


def restored(opened: Opened, config: Config, dataset: ComposedDataset) -> Loaded:
    """The network of a checkpoint for these images.

    Raises:
        InputError: the weights are damaged or do not fit.
    """
    mesh = make_mesh(config.train.devices)
    net = abstract_network(config, classes=len(dataset.class_names))
    require_shapes(opened.folder, opened.weights, {"params": net.params, "stats": net.stats})
    variables = replicate(mesh, opened.weights)
    return Loaded(opened.run_dir, opened.step, config, mesh, net, variables, dataset)


def _tell_other_data(opened: Opened, dataset: ComposedDataset) -> None:
    """Say it if the run had other data in a split than there are here."""
    theirs, ours = opened.data.get(dataset.split), dataset.fingerprint
    if theirs not in (None, ours):
        say(
            f"note: the {dataset.split} data of {dataset.data.dataset} here, {describe(ours)}, are "
            f"not those of the run, {describe(theirs)}"
        )


def evaluate(
    run_dir: Path,
    *,
    which: str = "best",
    split: Split = "test",
    flags: Sequence[str] = (),
    outputs: bool = False,
) -> dict[str, Any]:
    """Metrics of a checkpoint on a split; arguments as of `load`.

    Gives what `SplitEvaluator` gives, `further_metrics` and `checkpoint` (the step), `split` and
    `dataset`; with `outputs` these too, under that key: `id`, `logits`, `label`, `predicted` and
    `loss` by example.

    Raises:
        InputError: what `load` refuses, or weights that give no finite loss.
    """
    run = load(run_dir, which=which, split=split, flags=flags)
    evaluator = Evaluator(run.net, run.config, run.mesh, make_outputs_step).on(run.dataset)
    metrics, found = _measured(evaluator, run)
    metrics |= further_metrics(found, run.dataset.class_names)
    about = {"checkpoint": run.step, "split": split, "dataset": run.config.data.dataset}
    if outputs:
        about["outputs"] = {"id": np.array(run.dataset.ids), **found}
    return {**metrics, **about}


def steps(run_dir: Path, which: str) -> list[str]:
    """The checkpoints that `which` means: one, or with `all` every one that is finished.

    Raises:
        InputError: it is not a run directory, or has none.
    """
    if which != "all":
        return [which]
    with contextlib.closing(open_run(run_dir)) as checkpoints:
        checkpoints.find("last")
        return [str(step) for step in checkpoints.steps()]


def sweep(
    run_dir: Path,
    words: Sequence[str],
    *,
    which: str = "best",
    split: Split = "test",
    flags: Sequence[str] = (),
    shown: bool = False,
) -> dict[str, Any]:
    """Metrics of a checkpoint with each of several values of a data setting.

    `words` are the setting (`data.digit_side`) and its values; the other arguments are those of
    `load`. Gives `sweep` (the setting), `checkpoint`, `split`, `dataset` and `results`: for each
    `value` the `accuracy`, the `loss` and the number of `examples`. Progress is `shown`. The
    network is compiled once for values in a row that show it images of the same size and mean.

    Raises:
        InputError: it is not a data setting, a value is not allowed for it, or what `load` refuses.
    """
    setting, *values = words
    setting = setting.replace("-", "_")
    if not setting.startswith("data.") or not values:
        raise InputError(
            f"--sweep is '{' '.join(words)}'; allowed: a setting data.KEY and one value or several"
        )
    opened = open_checkpoint(run_dir, which, flags)
    instead = INSTEAD.get(setting)
    if instead and flatten(to_dict(opened.config))[instead] is not None:
        raise InputError(
            f"{setting} is ignored when {instead} is set; add --{instead.replace('_', '-')} null"
        )
    # All of them first: a wrong one is refused before any is evaluated.
    configs = [
        recipe.from_dict(to_dict(opened.config), [f"--{setting}", value]) for value in values
    ]
    last: tuple[Any, Loaded, Evaluator] | None = None
    rows = []
    each = zip(values, configs, strict=True)
    for value, config in track(each, len(values), f"evaluate, values of {setting}", shown):
        dataset = open_split(config, split)
        if last is None:
            _tell_other_data(opened, dataset)
        seen = config.data.image_size, normalisation(config), len(dataset.class_names)
        if last and last[0] == seen:
            _, loaded, evaluator = last
        else:
            loaded = restored(opened, config, dataset)
            evaluator = Evaluator(loaded.net, config, loaded.mesh)
        last = seen, loaded, evaluator
        found, _ = _measured(evaluator.on(dataset, config), loaded)
        rows.append({"value": value, **{key: found[key] for key in SWEPT}})
    name = opened.config.data.dataset
    common = {"checkpoint": opened.step, "split": split, "dataset": name}
    return {"sweep": setting, **common, "results": rows}


def _measured(
    evaluator: SplitEvaluator, run: Loaded
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metrics of a checkpoint, and what they are of, by example.

    Raises:
        InputError: the loss is not finite.
    """
    with jax.transfer_guard("disallow"):
        found = evaluator.predict(run.variables)
    metrics = evaluator.metrics(found)
    if not math.isfinite(metrics["loss"]):
        raise _unusable(run, "a loss that is")
    return metrics, found


def require_finite(probabilities: Float32[np.ndarray, "n classes"], run: Loaded) -> None:
    """Refuse weights that give no probabilities.

    Raises:
        InputError: one is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise _unusable(run, "probabilities that are")


def _unusable(run: Loaded, what: str) -> InputError:
    return InputError(
        f"checkpoint {run.step} of '{run.run_dir}' gives {what} not finite: "
        "its weights cannot be used"
    )
