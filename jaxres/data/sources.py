"""Labelled pictures for training, validation and test, whole in memory, photographs as JPEG.

`digits` comes with scikit-learn and needs no preparation; the others are read from what
`jaxres data prepare` wrote.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int32, Int64

from jaxres.config import Split
from jaxres.data import cifar10, contest, decoding, flowers, originals, records
from jaxres.data.encoded import EncodedPictures, Images
from jaxres.errors import InputError, unknown_name

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

# scikit-learn's digits have no published split: 30 pictures of each digit are held out twice.
DIGITS_PER_CLASS_HELD_OUT = 30
# Flowers and the contest's pictures have one published split: a tenth of each class is for test.
TENTH_SEED = 1


class Source(NamedTuple):
    """Pictures, grey or RGB, with their labels, 0 up to the number of classes."""

    images: Images
    labels: Int32[np.ndarray, " n"]
    class_names: tuple[str, ...]
    partial: str | None = None  # what the prepared set lacks

    @property
    def grey(self) -> bool:
        """Whether a picture has one value per pixel."""
        return isinstance(self.images, np.ndarray) and self.images.ndim == 3

    def first(self, limit: int | None) -> "Source":
        """At most the first `limit` pictures."""
        return self._replace(images=self.images[:limit], labels=self.labels[:limit])


class Selection(NamedTuple):
    """Which part of a data set is asked for."""

    split: Split
    data_dir: Path
    validation_examples: int
    split_seed: int
    canvas: int


class Dataset(NamedTuple):
    """A registry entry."""

    title: str
    load: Callable[[str, Selection], Source]
    class_names: tuple[str, ...]
    photographs: bool = False  # of differing sizes, cut to squares
    composed: bool = False  # its pictures are finished: nothing to lay over a background
    embedded_examples: dict[str, int] | None = None  # None: has to be prepared


def load(
    dataset: str,
    split: Split,
    *,
    data_dir: Path,
    validation_examples: int,
    split_seed: int,
    canvas: int,
) -> Source:
    """One split of a data set.

    Args:
        dataset: A key of `DATASETS`.
        split: `test` is the published test set where there is one, whatever the seed.
        data_dir: Where prepared data sets live.
        validation_examples: Pictures of the published training set that are held out, drawn by
            `split_seed` (of `modified_mnist` from each class its share). Without effect on
            `digits`, which is too small for the numbers that suit the others: 300 for validation
            and 300 for test, 30 of each digit, 1,197 for training.
        split_seed: 0 or more. The split depends on it alone.
        canvas: Photographs of differing sizes (`flowers`) become squares of this side, in pixels.
    """
    if dataset not in DATASETS:
        raise unknown_name("data set", dataset, DATASETS)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if split_seed < 0:
        raise InputError(f"split_seed is {split_seed}; allowed: 0 or more")
    selection = Selection(split, data_dir, validation_examples, split_seed, canvas)
    return DATASETS[dataset].load(dataset, selection)


def describe(data_dir: Path) -> list[records.Row]:
    """A row per data set for `jaxres data list`."""
    return [_row(name, dataset, data_dir) for name, dataset in DATASETS.items()]


def _row(name: str, dataset: Dataset, data_dir: Path) -> records.Row:
    if dataset.embedded_examples is None:
        return records.describe(name, dataset.title, data_dir)
    return records.Row(name, dataset.title, True, None, dataset.embedded_examples)


def _load_digits(name: str, selection: Selection) -> Source:
    from sklearn.datasets import load_digits  # 1 s to import

    bunch: Any = load_digits()
    # Values 0..16 count the dark pixels in blocks of 4x4.
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int32)
    order = shuffled(len(labels), selection.split_seed)
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in range(10):
        members = order[labels[order] == digit]
        cuts = (DIGITS_PER_CLASS_HELD_OUT, 2 * DIGITS_PER_CLASS_HELD_OUT)
        for split, part in zip(
            ("test", "validation", "train"), np.split(members, cuts), strict=True
        ):
            parts[split].append(part)
    chosen = np.sort(np.concatenate(parts[selection.split]))
    return Source(images[chosen], labels[chosen], tuple("0123456789"))


def _load_prepared(name: str, selection: Selection) -> Source:
    """A prepared data set with published splits `train` and `test`."""
    prepared = records.open_prepared(name, selection.data_dir)
    if selection.split == "test":
        return _decode(prepared, "test", range(prepared.examples.get("test", 0)))

    published = np.arange(prepared.examples.get("train", 0))
    return _decode(prepared, "train", _train_or_validation(published, name, selection).tolist())


def _load_flowers(name: str, selection: Selection) -> Source:
    """Flowers, of which the same tenth is always for test."""
    prepared = records.open_prepared(name, selection.data_dir)
    examples = list(prepared.read("train"))
    labels = _labels(prepared, examples)
    test = _tenth_of_each_class(labels)
    if selection.split == "test":
        chosen = test
    else:
        others = np.setdiff1d(np.arange(len(labels)), test)
        chosen = _train_or_validation(others, name, selection)
    # They are filed by class: mixed, the first so many of a split are of all classes.
    chosen = chosen[shuffled(len(chosen), TENTH_SEED)]
    encoded = [examples[index]["image"] for index in chosen]
    images = EncodedPictures(encoded, selection.canvas, prepared.folder)
    return Source(images, labels[chosen], DATASETS[name].class_names, prepared.partial)


def _load_modified_mnist(name: str, selection: Selection) -> Source:
    """The contest's labelled pictures: labels are as unequally frequent in every split as in all.

    The same tenth is always for test, since those of the contest's own test have no labels.
    """
    prepared = records.open_prepared(name, selection.data_dir)
    labels = _labels(prepared, prepared.read("train"))
    test = _tenth_of_each_class(labels)
    if selection.split == "test":
        return _decode(prepared, "train", np.sort(test).tolist())
    others = np.setdiff1d(np.arange(len(labels)), test)
    chosen = _train_or_validation(others, name, selection, labels=labels)
    return _decode(prepared, "train", chosen.tolist())


def _tenth_of_each_class(labels: Int32[np.ndarray, " n"]) -> Int64[np.ndarray, " test"]:
    """The places of a tenth of each class, rounded up, always the same."""
    order = shuffled(len(labels), TENTH_SEED)
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    return np.concatenate([members[: math.ceil(len(members) / 10)] for members in by_class])


def _train_or_validation(
    published: Int64[np.ndarray, " n"],
    name: str,
    selection: Selection,
    *,
    labels: Int32[np.ndarray, " all"] | None = None,
) -> Int64[np.ndarray, " chosen"]:
    """The members of one of the two splits into which the published training set is cut.

    With the labels of all pictures each class is cut in the same proportion, to within a picture.
    """
    held_out = selection.validation_examples
    if not 0 < held_out < len(published):
        raise InputError(
            f"data.validation_examples is {held_out}; allowed for {name}: 1 to {len(published) - 1}"
        )
    order = published[shuffled(len(published), selection.split_seed)]
    if labels is not None:
        order = order[np.argsort(_share_of_class_before(labels[order]), kind="stable")]
    return np.sort(order[:held_out] if selection.split == "validation" else order[held_out:])


def _share_of_class_before(labels: Int32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Of each picture, which share of its class comes before its own middle, 0 to 1."""
    shares = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shares[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shares


def shuffled(count: int, seed: int) -> Int64[np.ndarray, " count"]:
    """The numbers below `count` in an order drawn by the seed.

    From the raw bits of a counter-based generator, which NumPy keeps the same for ever; the
    shuffling on top of them may change with any version (NEP 19).
    """
    return np.argsort(np.random.Philox(seed).random_raw(count), kind="stable")


def _labels(
    prepared: records.Prepared, examples: Iterable[dict[str, Any]]
) -> Int32[np.ndarray, " n"]:
    """The labels of examples, of the classes that the data set has."""
    names = DATASETS[prepared.name].class_names
    given = prepared.features["label"].names
    if tuple(given or ()) != names:
        reason = f"its classes are {given}, not {', '.join(names)}"
        raise prepared.damaged(prepared.folder, reason)
    labels = [example["label"] for example in examples]
    for label in labels:
        if not 0 <= label < len(names):
            raise prepared.damaged(prepared.folder, f"a label is {label}")
    return np.array(labels, np.int32)


def _decode(prepared: records.Prepared, split: str, indices: Sequence[int]) -> Source:
    shape = tuple(prepared.features["image"].shape)
    grey = shape[-1:] == (1,)
    wanted = shape[:-1] if grey else shape
    examples = list(prepared.read(split, indices))
    labels = _labels(prepared, examples)
    images = []
    for example in examples:
        image = decoding.decode_picture(example["image"], prepared.folder, grey=grey)
        if image.shape != wanted:
            reason = f"a picture has shape {image.shape}, not {wanted}"
            raise prepared.damaged(prepared.folder, reason)
        images.append(image)
    if not images:
        raise prepared.damaged(prepared.folder, f"its split '{split}' is empty")
    names = DATASETS[prepared.name].class_names
    return Source(np.stack(images), labels, names, prepared.partial)


DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        "scikit-learn's handwritten digits, 8x8",
        _load_digits,
        tuple("0123456789"),
        embedded_examples={"train": 1197, "validation": 300, "test": 300},
    ),
    **{
        name: Dataset(published.title, _load_prepared, published.class_names)
        for name, published in originals.PUBLISHED.items()
    },
    "cifar10": Dataset(cifar10.TITLE, _load_prepared, cifar10.CLASS_NAMES),
    "flowers": Dataset(flowers.TITLE, _load_flowers, tuple(flowers.PUBLISHED), photographs=True),
    "modified_mnist": Dataset(
        contest.TITLE, _load_modified_mnist, contest.CLASS_NAMES, composed=True
    ),
}
