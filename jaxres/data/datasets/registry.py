"""The datasets by their names."""

from pathlib import Path

from jaxres.config import Split
from jaxres.data.datasets.cifar10 import CIFAR10
from jaxres.data.datasets.dataset import Dataset, Selection, Source
from jaxres.data.datasets.digits import DIGITS
from jaxres.data.datasets.flowers import FLOWERS
from jaxres.data.datasets.mnist import FASHION_MNIST, MNIST
from jaxres.data.datasets.modified_mnist import MODIFIED_MNIST
from jaxres.data.datasets.photos import PHOTOS
from jaxres.data.datasets.splits import SPLITS
from jaxres.data.readers import tfds_records
from jaxres.runtime.errors import InputError, unknown_name

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


def load(
    dataset: str,
    split: Split,
    *,
    data_dir: Path,
    validation_examples: int,
    split_seed: int,
    canvas: int,
) -> Source:
    """One split of a dataset.

    Args:
        dataset: A key of `DATASETS`.
        split: `test` is the published test set where there is one, whatever the seed.
        data_dir: Where prepared datasets live.
        validation_examples: Images of the published training set that are held out, drawn by
            `split_seed` (of `modified_mnist` from each class its share). Without effect on
            `digits`, which is too small for the numbers that suit the others: 300 for validation
            and 300 for test, 30 of each digit, 1,197 for training.
        split_seed: 0 or more. The split depends on it alone.
        canvas: Photographs of differing sizes (`flowers`) become squares of this side, in pixels.
    """
    if dataset not in DATASETS:
        raise unknown_name("dataset", dataset, DATASETS)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if split_seed < 0:
        raise InputError(f"split_seed is {split_seed}; allowed: 0 or more")
    selection = Selection(split, data_dir, validation_examples, split_seed, canvas)
    found = DATASETS[dataset]
    assert found.load is not None
    return found.load(found, selection)


def open_prepared(name: str, data_dir: Path) -> tfds_records.Prepared:
    """A prepared dataset, whose files are all there; `Prepared.read` checks their content."""
    return PREPARABLE[name].open(data_dir)


def describe(data_dir: Path) -> list[tfds_records.Row]:
    """A row per dataset for `jaxres data list`."""
    return [dataset.describe(data_dir) for dataset in DATASETS.values()]
