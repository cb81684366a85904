"""What a recipe's images look like: any of a split as they are rendered, and a sheet of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from jaxres.config import Config, Split
from jaxres.data.compose import render_device, render_host
from jaxres.data.composed import Batch, ComposedDataset, open_split
from jaxres.explain.sheet import contact_sheet, require_png_path, write_png


def write_sheet(config: Config, path: Path, *, split: Split, count: int) -> None:
    """Write a PNG of the first `count` images of a split, by the renderer of the recipe.

    Raises:
        InputError: the data is not there or the file cannot be written.
    """
    require_png_path(path)
    dataset = open_split(config, split)
    batch = planned(dataset, range(min(count, len(dataset))))
    names = [dataset.class_names[label] for label in batch["label"]]
    write_png(path, contact_sheet(rendered(dataset, batch), names))


def planned(dataset: ComposedDataset, examples: Sequence[int]) -> Batch:
    """The plans and labels of any examples of a split, each as evaluation shows it."""
    planner = dataclasses.replace(
        dataset, data=dataclasses.replace(dataset.data, render="device", workers=0)
    )
    one_by_one = [
        planner.batch(np.array([example], np.int32), epoch=0, first=int(example))
        for example in examples
    ]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *one_by_one)


def rendered(dataset: ComposedDataset, batch: Batch) -> UInt8[np.ndarray, "n side side 3"]:
    """The images of a batch that is planned, by the renderer of the recipe."""
    plan, augmentation, data = batch["plan"], batch.get("augmentation"), dataset.data
    if data.render == "host":
        return render_host.render(plan, augmentation, dataset.resident, data=data)
    plan, resident = plan.own(dataset.resident)
    render = jax.jit(render_device.render, static_argnames="data")
    return np.asarray(render(plan, augmentation, resident, data=data))
