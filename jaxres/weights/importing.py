"""Weights of other libraries become a checkpoint that `evaluate` and `model.init_from` take."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from jaxres.checkpoint.manager import Checkpoints
from jaxres.config import Config, DataConfig, ModelConfig, to_dict
from jaxres.models import registry
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import refusing, write_whole
from jaxres.weights.fit import Fitted, fit
from jaxres.weights.layout import Inputs


def import_weights(
    file: Path,
    model: str,
    output: Path,
    *,
    classes: int | None = None,
    inputs: Inputs | None = None,
    key: str | None = None,
) -> Fitted:
    """Write a run directory whose checkpoint 0 has the weights of a file, and settings for them.

    `classes` and `key` are as `fit` says. `inputs` replaces what the published weights expect; all
    kernels are then taken to be for red, green and blue.

    Raises:
        InputError: the file is not a weight file, or not of this model, or the folder is in use.
    """
    _require_free(output)
    seed = Config().train.seed
    fitted = fit(file, model, classes=classes, seed=seed, published=inputs is None, key=key)
    config = _config(model, inputs or fitted.inputs)
    state = {"params": fitted.params, "stats": fitted.stats}
    source = {"file": file.name, "sha256": _sha256(file), "format": fitted.format}
    progress = {"history": [], "best": None, "source": {**source, "new_head": fitted.new_head}}
    with _whole_folder(output) as folder:
        checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint)
        checkpoints.save(0, state, progress=progress, config=to_dict(config))
        checkpoints.wait()
        checkpoints.close()
        write_whole(folder / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
    return fitted


def _config(model: str, inputs: Inputs) -> Config:
    """Settings with which the weights can be evaluated: whole images of the size they know.

    Raises:
        InputError: a standard deviation is not above 0.
    """
    published = registry.family_of(model).published
    try:
        data = DataConfig(
            dataset=published.dataset or DataConfig.dataset,
            composition="plain",
            canvas=published.image_size,
            mean=inputs.mean,
            std=inputs.std,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    return Config(data=data, model=ModelConfig(name=model))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _require_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise InputError(
            f"the output '{folder}' already holds something; allowed: a new or empty folder"
        )


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its place once it is complete, and vanishes if it will not be."""
    partial = folder.resolve().with_name(f".{folder.resolve().name}.{os.getpid()}")
    try:
        with refusing(folder):
            partial.mkdir(parents=True)
            yield partial
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
