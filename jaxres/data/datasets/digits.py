"""scikit-learn's digits, which need no preparation."""

from typing import Any

import numpy as np

from jaxres.data.datasets.dataset import Dataset, Selection, Source
from jaxres.data.datasets.splits import SPLITS, shuffled

# They have no published split: 30 images of each digit are held out twice.
DIGITS_PER_CLASS_HELD_OUT = 30


def load(dataset: Dataset, selection: Selection) -> Source:
    """Of each digit 30 images for validation, 30 for test, the others for training."""
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
    return Source(images[chosen], labels[chosen], dataset.class_names)


DIGITS = Dataset(
    name="digits",
    title="scikit-learn's handwritten digits, 8x8",
    class_names=tuple("0123456789"),
    load=load,
    digits=True,
    embedded_examples={"train": 1197, "validation": 300, "test": 300},
)
