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
from jaxres.data.compose.composition import Composition, Resident, row
from jaxres.data.compose.compositions import compose
from jaxres.data.datasets import registry
from jaxres.data.datasets.dataset import Source, SplitNames
from jaxres.data.datasets.paths import data_dir
from jaxres.data.readers.encoded import EncodedImages, ImageFiles
from jaxres.runtime.errors import InputError

Batch = dict[str, Any]
MOST_ON_DEVICE = 8 << 30  # bytes of the images from which a device renders


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
    def multi_label(self) -> bool:
        """Whether labels say 0 or 1 for each class."""
        return self.source.labels.ndim == 2

    @property
    def ids(self) -> list[str]:
        """What tells the examples from each other: files' names, or numbers."""
        images = self.source.images
        if isinstance(images, EncodedImages | ImageFiles) and len(images) == self.examples:
            return images.names()
        return [str(k) for k in range(self.examples)]

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels, 0 and up, stand for."""
        return self.compose.class_names(self.source.class_names)

    def in_epoch(self, epoch: int) -> "ComposedDataset":
        """The split as an epoch shows it: `data.progressive` makes training images smaller."""
        begun = [first for first in self._by_first_epoch if first <= epoch]
        return self._by_first_epoch[max(begun)] if begun else self

    @functools.cached_property
    def _by_first_epoch(self) -> dict[int, "ComposedDataset"]:
        """The split as it is from each epoch of `data.progressive` on."""
        if self.split != "train":
            return {}
        compose: Any = self.compose
        return {
            first: dataclasses.replace(
                self,
                data=self.data.at_side(side),
                compose=dataclasses.replace(compose, canvas=side),
                augment=self.augment and dataclasses.replace(self.augment, side=side),
            )
            for first, side in self.data.sides_by_epoch().items()
        }

    def batch(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Batch:
        """The batch that shows `examples` at positions first, first + 1, ... of an epoch.

        Holds `label` (int32, n, or of multi-label data uint8, n classes) and either `plan` and, of
        training images that are augmented, `augmentation` (fields of n), or `image` (uint8, n h w
        3).
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
    def fingerprint(self) -> dict[str, int | str]:
        """By what the data of a split are known: `examples` in an epoch and `checksum`.

        That is the CRC-32, in hex, of labels and backgrounds and of the images, decoded or not, or
        of what tells images in files from others.
        """
        images = self.resident.images
        stored = [images] if isinstance(images, np.ndarray) else images.identity()
        crc = 0
        for values in (self.source.labels[: self.examples], self.resident.photos, *stored):
            plain = isinstance(values, bytes)
            crc = zlib.crc32(values if plain else np.ascontiguousarray(values).data, crc)
        return {"examples": len(self), "checksum": f"{crc:08x}"}

    def _plan(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Any:
        draw = functools.partial(self.compose.draw, seed=self.seed, stream=self.split)
        if self.data.fresh_pictures:
            return draw(examples, epoch=epoch, first=first)
        return row(self._stored, examples)

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
    dataset = registry.find(data.dataset, folder)
    source = registry.load(
        data.dataset,
        split,
        data_dir=folder,
        validation_examples=data.validation_examples,
        split_seed=data.split_seed,
        canvas=data.canvas,
        asked=SplitNames(data.train_split, data.validation_split, data.test_split),
    )
    limit = (
        config.train.limit_train_examples if split == "train" else config.train.limit_eval_examples
    )
    augment, crop = None, None
    ranges = config.augment.resolved()
    if split == "train" and (ranges.active or ranges.crop_area):
        require_labels_kept(config, digits=dataset.digits)
        crop = ranges if ranges.crop_area else None
        if ranges.on_canvas.active:
            augment = Augment(ranges.on_canvas, data.canvas)
    if ranges.crop_area and data.composition != "plain":
        raise InputError(
            f"augment.crop_area is given with data.composition {data.composition}; allowed: plain"
        )
    if data.composition != "plain" and not source.grey:
        raise InputError(
            f"data.composition is {data.composition}, which takes grey digits, but "
            f"the images of data.dataset {data.dataset} have colours; allowed: plain"
        )
    if data.composition != "plain" and dataset.composed:
        raise InputError(
            f"data.composition is {data.composition}, but the images of data.dataset "
            f"{data.dataset} are composed already; allowed: plain"
        )
    examples = len(source.labels[:limit])
    composed = compose(data, split, source, augment, folder, crop)
    if not composed.whole_source:
        source = source.first(limit)
    _require_room(data, source)
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


def require_one_class(dataset: ComposedDataset) -> None:
    """Refuse data whose images may be of several classes.

    Raises:
        InputError: the dataset is such.
    """
    if dataset.multi_label:
        raise InputError(
            f"an image of {dataset.data.dataset} may be of several classes; allowed here: datasets "
            "with one class per image"
        )


def _require_room(data: DataConfig, source: Source) -> None:
    """Refuse to decode into every device's memory what does not fit there."""
    if data.render == "host" or isinstance(source.images, np.ndarray):
        return
    size = len(source.labels) * data.canvas**2 * 3
    if size > MOST_ON_DEVICE:
        raise InputError(
            f"data.render is device, where the {len(source.labels):,} images of {data.dataset} "
            f"take {size >> 30} GiB at data.canvas {data.canvas}; allowed: "
            f"{MOST_ON_DEVICE >> 30} GiB, or host, which reads them when they are needed"
        )
