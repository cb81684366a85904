"""Examples of prepared datasets as arrays."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxres.data.datasets.dataset import Dataset, Selection, Source
from jaxres.data.datasets.splits import train_or_validation
from jaxres.data.readers import decoding, tfds_records


def load_published(dataset: Dataset, selection: Selection) -> Source:
    """A prepared dataset with the published splits `train` and `test`."""
    prepared = dataset.open(selection.data_dir)
    if selection.split == "test":
        return decoded(dataset, prepared, "test", range(prepared.examples.get("test", 0)))

    published = np.arange(prepared.examples.get("train", 0))
    return decoded(
        dataset, prepared, "train", train_or_validation(published, dataset.name, selection).tolist()
    )


def labels_of(
    dataset: Dataset, prepared: tfds_records.Prepared, examples: Iterable[dict[str, Any]]
) -> Int32[np.ndarray, " n"]:
    """The labels of examples, of the classes that the dataset has."""
    names = dataset.class_names
    given = prepared.features["label"].names
    if tuple(given or ()) != names:
        reason = f"its classes are {given}, not {', '.join(names)}"
        raise prepared.damaged(prepared.folder, reason)
    labels = [example["label"] for example in examples]
    for label in labels:
        if not 0 <= label < len(names):
            raise prepared.damaged(prepared.folder, f"a label is {label}")
    return np.array(labels, np.int32)


def decoded(
    dataset: Dataset, prepared: tfds_records.Prepared, split: str, indices: Sequence[int]
) -> Source:
    """Images of one size, decoded, with their labels."""
    shape = tuple(prepared.features["image"].shape)
    grey = shape[-1:] == (1,)
    wanted = shape[:-1] if grey else shape
    examples = list(prepared.read(split, indices))
    labels = labels_of(dataset, prepared, examples)
    images = []
    for example in examples:
        image = decoding.decode_image(example["image"], prepared.folder, grey=grey)
        if image.shape != wanted:
            reason = f"an image has shape {image.shape}, not {wanted}"
            raise prepared.damaged(prepared.folder, reason)
        images.append(image)
    if not images:
        raise prepared.damaged(prepared.folder, f"its split '{split}' is empty")
    return Source(np.stack(images), labels, dataset.class_names, prepared.partial)
