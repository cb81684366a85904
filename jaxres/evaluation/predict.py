"""Class probabilities of images that belong to no dataset, from a run directory alone."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxres.config import Config
from jaxres.data.compose.composition import Resident
from jaxres.data.compose.compositions import plain
from jaxres.data.composed import ComposedDataset
from jaxres.data.datasets import modified_mnist
from jaxres.data.datasets.registry import DATASETS, Source
from jaxres.data.readers import folders
from jaxres.data.readers.encoded import ImageFiles, Images
from jaxres.evaluation.evaluator import Evaluator
from jaxres.evaluation.run import Loaded, Opened, open_checkpoint, require_finite, restored
from jaxres.evaluation.step import make_outputs_step
from jaxres.models.pure import Net
from jaxres.ops.losses import is_multi_label
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import refusing, require_writable, write_whole

NOT_THERE = "no image at '{}'; allowed: JPEG, PNG, WebP and BMP files"


class Predicted(NamedTuple):
    """What a checkpoint predicts for images, and why some files cannot be read."""

    predictions: list[dict[str, Any]]
    problems: dict[Path, str]


def predict(
    run_dir: Path, files: Sequence[Path], *, which: str = "best", shown: bool = False
) -> Predicted:
    """What a checkpoint (`best`, `last` or a step) sees in image files, in their order.

    Of folders, all images below them. Gives for each `file`, `label` (a number), `class` (its
    name), `probability` and the `probabilities` of all classes by name; of multi-label data the
    `classes` too whose probability is above a half. Progress of several batches
    is `shown`.

    Raises:
        InputError: no such run or checkpoint, a damaged one, or no file that is an image.
    """
    every = [file for each in files for file in _image_files(each)]
    problems = {file: NOT_THERE.format(file) for file in every if not file.is_file()}
    run = load_files(open_checkpoint(run_dir, which), every, problems)
    names = run.dataset.class_names
    results = []
    rows = predict_all(run, shown=shown)["probabilities"]
    for file, row in zip(every, rows, strict=True):
        label = int(row.argmax())
        probabilities = dict(zip(names, row.tolist(), strict=True))
        found = {"label": label, "class": names[label], "probability": float(row[label])}
        if run.dataset.multi_label:
            found["classes"] = [name for name, each in probabilities.items() if each > 0.5]
        if file not in problems:
            results.append({"file": str(file), **found, "probabilities": probabilities})
    if not results:
        raise InputError(next(iter(problems.values())))
    return Predicted(results, problems)


def _image_files(path: Path) -> list[Path]:
    """A file itself, or the images below a folder."""
    return folders.find_images(path) if path.is_dir() else [path]


def write_submission(
    run_dir: Path, array: Path, output: Path, *, which: str = "best", shown: bool = False
) -> int:
    """Write the contest's CSV for an array without labels, whole; returns the number of images.

    Raises:
        InputError: as `predict`, or the array or the file cannot be used.
    """
    require_writable(output)
    images = modified_mnist.read_images(array)
    run = on_images(open_checkpoint(run_dir, which), images)
    theirs, ours = len(modified_mnist.CLASS_NAMES), len(run.dataset.class_names)
    if ours != theirs:
        raise InputError(f"'{run_dir}' has {ours} classes; allowed for a submission: {theirs}")
    rows = predict_all(run, shown=shown)["probabilities"]
    lines = [
        ",".join(modified_mnist.COLUMNS),
        *(f"{k},{row.argmax()}" for k, row in enumerate(rows)),
    ]
    with refusing(output):
        write_whole(output, "\n".join(lines) + "\n")
    return len(rows)


def require_files(files: Sequence[Path]) -> None:
    """Refuse image files that are not there.

    Raises:
        InputError: naming the first.
    """
    for file in files:
        if not file.is_file():
            raise InputError(NOT_THERE.format(file))


def load_files(
    opened: Opened, files: Sequence[Path], problems: dict[Path, str] | None = None
) -> Loaded:
    """A checkpoint and image files, cut to squares where the run's photographs were.

    Files that are not images are noted in `problems`, if it is given; see `ImageFiles`.

    Raises:
        InputError: the checkpoint is damaged, or does not fit the settings.
    """
    return on_images(opened, ImageFiles(files, square_side(opened.config), problems))


def square_side(config: Config) -> int | None:
    """Side of the squares that photographs are cut to, pixels; None if a run's images are not."""
    dataset = config.data.dataset
    if config.data.short_side is not None:
        return None
    photographs = dataset not in DATASETS or DATASETS[dataset].photographs
    return config.data.canvas if photographs else None


def on_images(opened: Opened, images: Images) -> Loaded:
    """A checkpoint and images that are brought to the run's size, as `plain` does.

    What a recipe composes (digits on photographs) is taken to be in the images already. They are
    rendered on the host, which takes images of any size.
    """
    dataset = as_dataset(opened, images)
    return restored(opened, dataclasses.replace(opened.config, data=dataset.data), dataset)


def as_dataset(opened: Opened, images: Images) -> ComposedDataset:
    """Images as a split of a run's dataset, labels unknown; see `on_images`."""
    data = dataclasses.replace(opened.config.data, composition="plain", render="host", workers=0)
    unknown = np.zeros(len(images), np.int32)
    if opened.multi_label:
        unknown = np.zeros((len(images), opened.outputs), np.uint8)
    source = Source(images, unknown, _class_names(opened))
    return ComposedDataset(
        split="test",
        source=source,
        resident=Resident(images, np.empty((0, 0, 0, 3), np.uint8)),
        compose=plain(data),
        augment=None,
        data=data,
        seed=data.eval_seed,
        examples=len(images),
    )


def predict_all(run: Loaded, *, shown: bool = False) -> dict[str, np.ndarray]:
    """`label` and class `probabilities` (the softmax of the logits) of every image, in order.

    Of multi-label data they are the sigmoids.

    Progress of several batches is `shown`.

    Raises:
        InputError: a probability is not finite.
    """
    with jax.transfer_guard("disallow"):
        evaluator = Evaluator(run.net, run.config, run.mesh, make_probability_step).on(run.dataset)
        several = len(run.dataset) > run.config.data.batch_size
        results = evaluator.predict(run.variables, shown=shown and several)
    require_finite(results["probabilities"], run)
    return results


def make_probability_step(
    net: Net, config: Config
) -> Callable[[dict[str, Any], Array, Array], dict[str, Float[Array, "n classes"]]]:
    """A step from one device's part of a batch to `probabilities`, whatever the labels say.

    Those of multi-label data are of each class by itself.
    """

    outputs = make_outputs_step(net, config)

    def step(variables: dict[str, Any], images: Array, labels: Array) -> dict[str, Array]:
        probabilities = jax.nn.sigmoid if is_multi_label(labels) else jax.nn.softmax
        return {"probabilities": probabilities(outputs(variables, images, labels)["logits"])}

    return step


def _class_names(opened: Opened) -> tuple[str, ...]:
    """Those of the run; of an older run the dataset's, where the network tells its classes."""
    classes = opened.outputs
    if len(opened.classes) == classes:
        return opened.classes
    data = opened.config.data
    dataset = None if data.composition == "scatter_digits" else DATASETS.get(data.dataset)
    if dataset and len(dataset.class_names) == classes:
        return dataset.class_names
    return tuple(map(str, range(classes)))
