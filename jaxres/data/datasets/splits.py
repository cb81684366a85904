"""Which examples a split has: drawn by counter-based bits, the same with every version."""

import math

import numpy as np
from jaxtyping import Float64, Int32, Int64

from jaxres.config import Split
from jaxres.data.datasets.dataset import Selection
from jaxres.runtime.errors import InputError

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# Flowers and the contest's images have one published split: a tenth of each class is for test.
TENTH_SEED = 1
HELD_OUT = 10_000  # examples for validation, where nobody says how many


def shuffled(count: int, seed: int) -> Int64[np.ndarray, " count"]:
    """The numbers below `count` in an order drawn by the seed.

    From the raw bits of a counter-based generator, which NumPy keeps the same for ever; the
    shuffling on top of them may change with any version (NEP 19).
    """
    return np.argsort(np.random.Philox(seed).random_raw(count), kind="stable")


def tenth(count: int) -> int:
    """A tenth, rounded up."""
    return math.ceil(count / 10)


def tenth_of_each_class(labels: Int32[np.ndarray, " n"]) -> Int64[np.ndarray, " test"]:
    """The places of a tenth of each class, rounded up, always the same."""
    order = shuffled(len(labels), TENTH_SEED)
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    return np.concatenate([members[: tenth(len(members))] for members in by_class])


def train_or_validation(
    published: Int64[np.ndarray, " n"],
    name: str,
    selection: Selection,
    *,
    labels: Int32[np.ndarray, " all"] | None = None,
) -> Int64[np.ndarray, " chosen"]:
    """The members of one of the two splits into which the published training set is cut.

    By default 10,000 are held out, or a tenth if there are no more than that. With the labels of
    all images each class is cut in the same proportion, to within an image.
    """
    held_out = selection.validation_examples
    if held_out is None:
        held_out = HELD_OUT if len(published) > HELD_OUT else tenth(len(published))
    if not 0 < held_out < len(published):
        raise InputError(
            f"data.validation_examples is {held_out}; allowed for {name}: 1 to {len(published) - 1}"
        )
    order = published[shuffled(len(published), selection.split_seed)]
    if labels is not None:
        order = order[np.argsort(_share_of_class_before(labels[order]), kind="stable")]
    return np.sort(order[:held_out] if selection.split == "validation" else order[held_out:])


def _share_of_class_before(labels: Int32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Of each image, which share of its class comes before its own middle, 0 to 1."""
    shares = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shares[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shares
