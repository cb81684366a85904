"""The examples of a dataset of a user's own, and which of them make a split of a run.

Splits are given in TFDS's slicing syntax (`train[:90%]`) or found by their names.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from jaxres.data.datasets.dataset import Selection, Source
from jaxres.data.datasets.splits import (
    HELD_OUT,
    TENTH_SEED,
    shuffled,
    tenth,
    tenth_of_each_class,
    train_or_validation,
)
from jaxres.data.readers.encoded import Images
from jaxres.runtime.errors import InputError

Numbers = Int64[np.ndarray, "_"]


@dataclasses.dataclass(frozen=True)
class Examples:
    """All examples of a dataset in a row, and which of them each published split has."""

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, range]
    # One class per example, or of multi-label data 0 or 1 for each class.
    labels: Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]
    images: Callable[[Numbers], Images]  # those of some examples, as a run of this canvas sees them
    partial: str | None = None

    @property
    def multi_label(self) -> bool:
        """Whether an image may be of several classes, or none."""
        return self.labels.ndim == 2


class Split(NamedTuple):
    """The examples of a split of a run, and the key of the settings that chose them."""

    key: str
    examples: Numbers


def select(examples: Examples, selection: Selection) -> Source:
    """The examples of a split of a run, in an order that mixes classes.

    test: `data.test_split`; else the split `test`, else `validation`, else a tenth of each class of
    the training examples, always the same. validation: `data.validation_split`; else, where there
    is a `test` too, the split `validation`; else `data.validation_examples` of the training
    examples, by default a tenth and at most 10,000, of each class its share. train:
    `data.train_split`, else what of the split `train` is in neither.

    Raises:
        InputError: a split is unknown or empty, two share examples, or a label is out of range.
    """
    splits = _splits(examples, selection)
    chosen = splits[selection.split].examples
    if not len(chosen):
        raise InputError(
            f"the {selection.split} split of {examples.name} is empty; its splits: "
            f"{_listed(examples)}"
        )
    _require_apart(examples, splits)
    chosen = chosen[shuffled(len(chosen), TENTH_SEED)]
    labels = examples.labels[chosen]
    _require_labels(examples, labels, splits[selection.split].key)
    return Source(examples.images(chosen), labels, examples.class_names, examples.partial)


def _splits(examples: Examples, selection: Selection) -> dict[str, Split]:
    asked, there = selection.asked, examples.splits
    specs = {
        "test": asked.test or next((name for name in ("test", "validation") if name in there), ""),
        "validation": asked.validation,
    }
    if "test" in there and "validation" in there and not asked.test:
        specs["validation"] = asked.validation or "validation"
    splits = {
        name: _sliced(examples, f"data.{name}_split", spec) for name, spec in specs.items() if spec
    }
    train = _sliced(examples, "data.train_split", asked.train or "train").examples
    if not asked.train:
        for split in splits.values():
            train = np.setdiff1d(train, split.examples)
    for name in specs:
        if name not in splits:
            held_out = (
                train[_tenth(examples, train)]
                if name == "test"
                else _validation(examples, train, selection)
            )
            train = np.setdiff1d(train, held_out)
            splits[name] = Split(f"data.{name}_split", held_out)
    return {"train": Split("data.train_split", train), **splits}


def _tenth(examples: Examples, numbers: Numbers) -> Numbers:
    """The places of a tenth of some examples, of each class where they have one."""
    if examples.multi_label:
        return shuffled(len(numbers), TENTH_SEED)[: tenth(len(numbers))]
    return tenth_of_each_class(examples.labels[numbers])


def _validation(examples: Examples, train: Numbers, selection: Selection) -> Numbers:
    held_out = selection.validation_examples
    if held_out is None:
        held_out = min(HELD_OUT, tenth(len(train)))
    asked = selection._replace(split="validation", validation_examples=held_out)
    labels = None if examples.multi_label else examples.labels
    return train_or_validation(train, examples.name, asked, labels=labels)


def _sliced(examples: Examples, key: str, spec: str) -> Split:
    """The examples that a split's name, a slice or a sum of them (`train[:90%]+extra`) means.

    Raises:
        InputError: it is none of these, or names a split that is not there.
    """
    from tensorflow_datasets.core import splits as tfds_splits

    known: Any = {
        name: SimpleNamespace(num_examples=len(members), shard_lengths=[len(members)])
        for name, members in examples.splits.items()
    }
    try:
        parts = tfds_splits.AbstractSplit.from_spec(spec).to_absolute(known)
    # TFDS raises what its layers meet: ValueError, NotImplementedError, of a bad type others.
    except Exception as error:
        raise InputError(
            f"{key} is '{spec}', which {examples.name} has not; allowed: {_listed(examples)}, or a "
            "part of one, as train[:90%]"
        ) from error
    numbers = [np.array(examples.splits[part.splitname][part.from_ : part.to]) for part in parts]
    return Split(key, np.concatenate(numbers).astype(np.int64))


def _listed(examples: Examples) -> str:
    return ", ".join(f"{name} ({len(members):,})" for name, members in examples.splits.items())


def _require_apart(examples: Examples, splits: Mapping[str, Split]) -> None:
    """Refuse to judge a network by what it was trained on."""
    for one, other in itertools.combinations(splits.values(), 2):
        if shared := len(np.intersect1d(one.examples, other.examples)):
            raise InputError(
                f"{one.key} and {other.key} share {shared:,} examples of {examples.name}; allowed: "
                "splits without common examples, as train[:90%] and train[90%:]"
            )


def _require_labels(examples: Examples, labels: np.ndarray, key: str) -> None:
    last = 1 if examples.multi_label else len(examples.class_names) - 1
    wrong = labels[(labels < 0) | (labels > last)]
    if len(wrong):
        raise InputError(
            f"{len(wrong):,} labels of {examples.name} are out of range, as {wrong[0]} (allowed: 0 "
            f"to {last}): choose another split by {key}"
        )
