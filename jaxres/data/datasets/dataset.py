"""What a dataset is: how it is prepared from its original files, and how a split is loaded."""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.config import Split as SplitName
from jaxres.data.datasets.bad import Bad
from jaxres.data.readers import tfds_records
from jaxres.data.readers.encoded import Images
from jaxres.runtime.errors import InputError

Example = dict[str, Any]  # "image" holds encoded bytes
AHEAD = 4  # examples made ahead of their writer, per core


class Source(NamedTuple):
    """Images, grey or RGB, with their labels, 0 up to the number of classes."""

    images: Images
    labels: Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]  # multi-label: 0 and 1
    class_names: tuple[str, ...]
    partial: str | None = None  # what the prepared set lacks

    @property
    def grey(self) -> bool:
        """Whether an image has one value per pixel."""
        return isinstance(self.images, np.ndarray) and self.images.ndim == 3

    def first(self, limit: int | None) -> "Source":
        """At most the first `limit` images."""
        return self._replace(images=self.images[:limit], labels=self.labels[:limit])


class SplitNames(NamedTuple):
    """The splits that the settings name, of a dataset of a user's own; empty: found by name."""

    train: str = ""
    validation: str = ""
    test: str = ""


FOUND_BY_NAME = SplitNames()


class Selection(NamedTuple):
    """Which part of a dataset is asked for."""

    split: SplitName
    data_dir: Path
    validation_examples: int | None
    split_seed: int
    canvas: int
    asked: SplitNames = FOUND_BY_NAME


class Request(NamedTuple):
    """What was asked for."""

    name: str
    from_dir: Path | None
    data_dir: Path
    progress: bool
    photo_side: int
    partial: bool
    bad: Bad  # gets the images that cannot be used
    # Of datasets of a user's own; `stage` is a folder that is gone afterwards.
    layout: str = ""
    short_side: int | None = None
    quality: int = 90
    stage: Path = Path()


@dataclass(frozen=True)
class Items:
    """Examples that are made one by one, in parallel and from any place on."""

    items: Sequence[Any]
    make: Callable[[Any], Example]
    bad: Bad  # gets those of which `make` raises InputError

    def after(self, done: int) -> Iterator[Example | None]:
        """The examples of all items but the first `done`, in order; None for a bad one."""
        waiting: collections.deque[concurrent.futures.Future[Example]] = collections.deque()
        rest = iter(self.items[done:])
        threads = os.cpu_count() or 1
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            try:
                while True:
                    for item in itertools.islice(rest, AHEAD * threads - len(waiting)):
                        waiting.append(pool.submit(self.make, item))
                    if not waiting:
                        return
                    made = None
                    with self.bad.noting():
                        made = waiting.popleft().result()
                    yield made
            finally:
                for future in waiting:
                    future.cancel()


class Split(NamedTuple):
    """The examples of one split, made as they are written."""

    count: int
    examples: Iterable[Example] | Items


class Content(NamedTuple):
    """A dataset about to be written."""

    description: str
    features: dict[str, Any]  # TFDS feature connectors
    splits: dict[str, Split]
    supervised_keys: tuple[str, str] | None = None
    homepage: str | None = None
    citation: str | None = None
    partial: str | None = None  # what of the published set is missing


@dataclass(frozen=True)
class Dataset:
    """A dataset by its name: one file of this package each, registered in `registry`.

    Prepared datasets lie in DATA_DIR/NAME/VERSION. Published ones carry the version of TFDS's own,
    whose features and splits they share: what TFDS prepared in the same place is read as well (but
    for flowers, its tf_flowers).
    """

    name: str
    title: str
    class_names: tuple[str, ...] = ()
    load: Callable[["Dataset", Selection], Source] | None = None  # None: no labels, backgrounds
    prepare: Callable[[Request], Content] | None = None  # None: it comes with a dependency
    version: str = ""
    features: frozenset[str] = frozenset({"image", "label"})  # what an example must have
    photographs: bool = False  # of differing sizes, cut to squares
    composed: bool = False  # its images are finished: nothing to lay over a background
    digits: bool = (
        False  # mirrored or turned far they are digits no more: augmentation may not do it
    )
    embedded_examples: dict[str, int] | None = None  # None: has to be prepared
    # Fields of the request that change what is written; noted in the dataset's metadata.
    settings: tuple[str, ...] = ()
    may_be_partial: bool = False
    may_skip: bool = False  # images that cannot be used

    def folder(self, data_dir: Path) -> Path:
        """Where it lies when it is prepared."""
        return data_dir / self.name / self.version

    def open(self, data_dir: Path) -> tfds_records.Prepared:
        """The prepared dataset.

        Raises:
            InputError: it is not there, or damaged.
        """
        return tfds_records.open_prepared(self.name, self.folder(data_dir), self.features)

    def describe(self, data_dir: Path) -> tfds_records.Row:
        """Its line in `jaxres data list`."""
        if self.embedded_examples is not None:
            return tfds_records.Row(self.name, self.title, True, None, self.embedded_examples)
        return tfds_records.describe(self.name, self.title, self.folder(data_dir), self.features)


def png(image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A grey or RGB image as PNG.

    Raises:
        InputError: it has other values than bytes, or another number of channels.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or image.shape[2:] == (3,)):
        raise InputError(
            f"an image is an array of {image.dtype} of shape {image.shape}; allowed: uint8, of "
            "height and width, or of height, width and 3"
        )
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # pyright: ignore[reportAssignmentType]
    return cv2.imencode(".png", image)[1].tobytes()
