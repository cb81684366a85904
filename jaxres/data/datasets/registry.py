"""The datasets by their names."""

import contextlib
from pathlib import Path

from jaxres.config import Split
from jaxres.data.datasets.cifar10 import CIFAR10
from jaxres.data.datasets.dataset import FOUND_BY_NAME, Dataset, Selection, Source, SplitNames
from jaxres.data.datasets.digits import DIGITS
from jaxres.data.datasets.flowers import FLOWERS
from jaxres.data.datasets.mnist import FASHION_MNIST, MNIST
from jaxres.data.datasets.modified_mnist import MODIFIED_MNIST
from jaxres.data.datasets.photos import PHOTOS
from jaxres.data.datasets.sound import sound
from jaxres.data.datasets.splits import SPLITS
from jaxres.data.own import csv_file, image_folder, tfds_dataset
from jaxres.data.readers import tfds_records
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.own_code import own_code

_ALL = (DIGITS, MNIST, FASHION_MNIST, CIFAR10, FLOWERS, MODIFIED_MNIST, PHOTOS)
DATASETS = {each.name: each for each in _ALL if each.load is not None}
PREPARABLE = {each.name: each for each in _ALL if each.prepare is not None}


def register_dataset(dataset: Dataset) -> Dataset:
    """Make a dataset available as `data.dataset: NAME` and, if it has `prepare`, to be prepared.

    Raises:
        ValueError: the name is taken.
    """
    if dataset.name in DATASETS or dataset.name in PREPARABLE:
        raise ValueError(f"a dataset '{dataset.name}' is already registered")
    if dataset.load is not None:
        DATASETS[dataset.name] = dataset
    if dataset.prepare is not None:
        PREPARABLE[dataset.name] = dataset
    return dataset


# What `data.dataset` may begin with, and the datasets of a user's own that are meant.
OWN = {each.PREFIX: each.dataset for each in (image_folder, csv_file, tfds_dataset)}


def find(name: str, data_dir: Path) -> Dataset:
    """The dataset that `data.dataset` names.

    Raises:
        InputError: it names none.
    """
    if name in DATASETS:
        return DATASETS[name]
    for prefix, dataset in OWN.items():
        if name.startswith(prefix):
            return dataset(name)
    if tfds_dataset.is_stored(name, data_dir):
        return tfds_dataset.dataset(name)
    prepared = f"{', '.join(f'{prefix}...' for prefix in OWN)} or one prepared in {data_dir}"
    raise unknown_name("dataset", name, DATASETS, shown=f"{', '.join(DATASETS)}, {prepared}")


def load(
    dataset: str,
    split: Split,
    *,
    data_dir: Path,
    validation_examples: int | None,
    split_seed: int,
    canvas: int,
    asked: SplitNames = FOUND_BY_NAME,
) -> Source:
    """One split of a dataset.

    Args:
        dataset: What `find` takes.
        split: `test` is the published test set where there is one, whatever the seed.
        data_dir: Where prepared datasets live.
        validation_examples: Images of the published training set that are held out, drawn by
            `split_seed` (of `modified_mnist` from each class its share). Without effect on
            `digits`, which is too small for the numbers that suit the others: 300 for validation
            and 300 for test, 30 of each digit, 1,197 for training.
        split_seed: 0 or more. The split depends on it alone.
        canvas: Photographs of differing sizes (`flowers`) become squares of this side, in pixels.
        asked: Splits of a dataset of a user's own, see `own.examples.select`.
    """
    found = find(dataset, data_dir)
    if dataset in DATASETS and any(asked):
        raise InputError(
            f"data.{next(key for key, value in asked._asdict().items() if value)}_split is given, "
            f"but the splits of {dataset} are fixed; allowed for datasets of your own"
        )
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if split_seed < 0:
        raise InputError(f"split_seed is {split_seed}; allowed: 0 or more")
    selection = Selection(split, data_dir, validation_examples, split_seed, canvas, asked)
    assert found.load is not None
    with calling(found):
        source = found.load(found, selection)
    return sound(source, dataset) if is_registered(found) else source


def is_registered(dataset: Dataset) -> bool:
    """Whether a user's own code registered it."""
    return dataset not in _ALL and dataset.name in DATASETS.keys() | PREPARABLE.keys()


def calling(dataset: Dataset) -> contextlib.AbstractContextManager[None]:
    """Where a dataset's own functions run: see `own_code`."""
    return own_code(f"the dataset '{dataset.name}'", when=is_registered(dataset))


def open_prepared(name: str, data_dir: Path) -> tfds_records.Prepared:
    """A prepared dataset, whose files are all there; `Prepared.read` checks their content."""
    return PREPARABLE[name].open(data_dir)


def describe(data_dir: Path) -> list[tfds_records.Row]:
    """A row per dataset for `jaxres data list`, those that the user prepared among them."""
    rows = [dataset.describe(data_dir) for dataset in DATASETS.values()]
    known = DATASETS.keys() | PREPARABLE.keys()
    there = sorted(each.name for each in data_dir.iterdir()) if data_dir.is_dir() else []
    return rows + [
        tfds_dataset.describe(name, data_dir)
        for name in there
        if name not in known and tfds_dataset.is_stored(name, data_dir)
    ]
