"""The input pipeline as a torch user writes it: a Dataset of single images and a DataLoader."""

import random
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.utils.data import DataLoader, Dataset  # pyright: ignore[reportMissingImports]

from jaxres.data.compose.scale_blend import ScaleBlend
from jaxres.data.composed import ComposedDataset

VERSION = torch.__version__


class ScaledDigits(Dataset):
    """Digits scaled bicubically and blended over random crops of photographs."""

    def __init__(self, dataset: ComposedDataset):
        self.digits = dataset.source.images
        self.labels = dataset.source.labels
        self.photos = dataset.resident.photos
        assert isinstance(dataset.compose, ScaleBlend)
        self.compose = dataset.compose

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image drawn at random around a digit, and the digit's label."""
        compose = self.compose
        margin = compose.photo_side - compose.canvas + 1
        crop = (_below(margin), _below(margin))
        side = compose.sides[_below(len(compose.sides))]
        if compose.placement == "center":
            offset = (compose.canvas - side) // 2
            corner = (offset, offset)
        else:
            room = compose.canvas - side + 1
            corner = (_below(room), _below(room))
        photo = _below(len(self.photos))
        image = self.image(
            index, photo, crop=crop, side=side, corner=corner, opacity=compose.opacity
        )
        return image, int(self.labels[index])

    def image(
        self,
        digit: int,
        photo: int,
        *,
        crop: tuple[int, int],
        side: int,
        corner: tuple[int, int],
        opacity: float,
    ) -> np.ndarray:
        """The image (uint8, canvas canvas 3) that these numbers describe."""
        row, column = crop
        canvas = self.compose.canvas
        image = self.photos[photo, row : row + canvas, column : column + canvas].copy()
        scaled = cv2.resize(self.digits[digit], (side, side), interpolation=cv2.INTER_CUBIC)
        row, column = corner
        square = image[row : row + side, column : column + side]
        square[:] = cv2.addWeighted(
            square, 1 - opacity, cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB), opacity, 0
        )
        return image


def images_of(dataset: ComposedDataset, *, as_bytes: bool) -> Dataset:
    """The same images, as a torch user makes them."""
    if isinstance(dataset.compose, ScaleBlend):
        return ScaledDigits(dataset)
    from benchmarks.peers.torch_photographs import Photographs

    return Photographs(dataset, as_bytes=as_bytes)


def batches(
    dataset: ComposedDataset, batch_size: int, *, workers: int, as_bytes: bool = False
) -> Iterator[Any]:
    """Batches without end: (images uint8, labels), collated by the DataLoader.

    Without workers torch is kept to one thread while this runs, as it keeps each of its workers.
    They are started by `forkserver`: a fork would copy the threads of JAX.
    """
    loader = DataLoader(
        images_of(dataset, as_bytes=as_bytes),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=_init_worker if workers else None,
        persistent_workers=workers > 0,
        multiprocessing_context="forkserver" if workers else None,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        while True:
            yield from loader
    finally:
        torch.set_num_threads(threads)


def _init_worker(index: int) -> None:
    del index  # torch seeds `random` of each worker
    cv2.setNumThreads(0)  # one process a core already


def _below(bound: int) -> int:
    return random.randrange(bound)
