"""A dataset of your own, drawn on the spot: stripes that lie, stand or lean."""

import numpy as np

import jaxres
from jaxres.data.datasets.dataset import Dataset, Selection, Source

EXAMPLES = {"train": 512, "validation": 128, "test": 128}
SIDE = 32


def load(dataset: Dataset, selection: Selection) -> Source:
    """One split as arrays and labels; the same images every time."""
    rng = np.random.default_rng([*selection.split.encode()])
    count = EXAMPLES[selection.split]
    labels = rng.integers(0, len(dataset.class_names), count).astype(np.int32)
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    way = np.stack([down, across, across + down])[labels]
    phase, width = rng.uniform(0, 6, (count, 1, 1)), rng.uniform(1, 3, (count, 1, 1))
    waves = np.sin(way / width + phase)
    noise = rng.normal(0, 0.5, waves.shape)
    images = np.clip(128 + 60 * (waves + noise), 0, 255).astype(np.uint8)
    return Source(images, labels, dataset.class_names)


jaxres.register_dataset(
    Dataset(
        name="stripes",
        title="stripes, drawn on the spot, 32x32",
        class_names=("lying", "standing", "leaning"),
        load=load,
        composed=True,
        embedded_examples=EXAMPLES,
    )
)
