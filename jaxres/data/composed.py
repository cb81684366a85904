"""From settings to the images of a split, planned and, on the host, rendered."""

import dataclasses
import functools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxres.config import Config, DataConfig, Split
from jaxres.data.augment import Augment, require_labels_kept
from jaxres.data.compose import render_host
from jaxres.data.compose.composition import Composition, Resident
from jaxres.data.compose.compositions import compose
from jaxres.data.datasets import registry
from jaxres.data.datasets.paths import data_dir
from jaxres.data.datasets.registry import Source
from jaxres.data.readers.encoded import EncodedImages
from jaxres.runtime.errors import InputError

Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ComposedDataset:
    """One split, ready to be planned and rendered."""

    split: Split
    source: Source
    resident: Resident
    compose: Composition
    augment: Augment | None
    data: DataConfig
    seed: int
    examples: int  # in an epoch

    def __len__(self) -> int:
        """Number of images in an epoch."""
        return self.examples

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels, 0 and up, stand for."""
        return self.compose.class_names(self.source.class_names)

    def batch(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Batch:
        """The batch that shows `examples` at positions first, first + 1, ... of an epoch.

        Holds `label` (int32, n) and either `plan` and, of training images that are augmented,
        `augmentation` (fields of n), or `image` (uint8, n h w 3).
        """
        plan = self._plan(examples, epoch=epoch, first=first)
        labels = self.compose.labels(plan, self.source.labels[examples])
        augmentation = None
        if self.augment is not None:
            augmentation = self.augment.draw(
                len(examples), seed=self.seed, epoch=epoch, first=first
            )
            if augmentation.matrix is not None:
                plan = self.compose.moved(plan, augmentation.matrix)
        if self.data.render == "device":
            planned = {"plan": plan, "label": labels}
            return planned if augmentation is None else planned | {"augmentation": augmentation}
        images = render_host.render(plan, augmentation, self.resident, data=self.data)
        return {"image": images, "label": labels}

    @functools.cached_property
    def facts(self) -> dict[str, int | str]:
        """By what the data of a split are known: `examples` in an epoch and `checksum`.

        That is the CRC-32, in hex, of labels and backgrounds and of the images, decoded or not.
        """
        images = self.resident.images
        stored = images.encoded if isinstance(images, EncodedImages) else [images]
        crc = 0
        for values in (self.source.labels[: self.examples], self.resident.photos, *stored):
            plain = isinstance(values, bytes)
            crc = zlib.crc32(values if plain else np.ascontiguousarray(values).data, crc)
        return {"examples": len(self), "checksum": f"{crc:08x}"}

    def _plan(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Any:
        draw = functools.partial(self.compose.draw, seed=self.seed, stream=self.split)
        if self.data.fresh_pictures:
            return draw(examples, epoch=epoch, first=first)
        return type(self._stored)(*(field[examples] for field in self._stored))

    @functools.cached_property
    def _stored(self) -> Any:
        """The plans of all examples, the same in every epoch."""
        every = np.arange(self.examples, dtype=np.int32)
        return self.compose.draw(every, seed=self.seed, stream=self.split, epoch=0, first=0)


def open_split(config: Config, split: Split) -> ComposedDataset:
    """Load the dataset and the background bank of a split into memory.

    Raises:
        InputError: a dataset is unknown, not prepared or damaged, has no such images, or does
            not suit the composition.
    """
    data = config.data
    folder: Path = data_dir(data.data_dir)
    source = registry.load(
        data.dataset,
        split,
        data_dir=folder,
        validation_examples=data.validation_examples,
        split_seed=data.split_seed,
        canvas=data.canvas,
    )
    limit = (
        config.train.limit_train_examples if split == "train" else config.train.limit_eval_examples
    )
    augment = None
    if split == "train" and (ranges := config.augment.resolved()).active:
        require_labels_kept(config)
        augment = Augment(ranges, data.canvas)
    if data.composition != "plain" and not source.grey:
        raise InputError(
            f"data.composition is {data.composition}, which takes grey digits, but "
            f"the images of data.dataset {data.dataset} have colours; allowed: plain"
        )
    if data.composition != "plain" and registry.DATASETS[data.dataset].composed:
        raise InputError(
            f"data.composition is {data.composition}, but the images of data.dataset "
            f"{data.dataset} are composed already; allowed: plain"
        )
    examples = len(source.labels[:limit])
    composed = compose(data, split, source, augment, folder)
    if not composed.whole_source:
        source = source.first(limit)
    return ComposedDataset(
        split=split,
        source=source,
        resident=Resident(source.images, composed.photos, composed.patch),
        compose=composed.composition,
        augment=augment,
        data=data,
        seed=config.train.seed if split == "train" else data.eval_seed,
        examples=examples,
    )
