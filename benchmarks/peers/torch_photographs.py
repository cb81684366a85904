"""ImageNet's pipeline as a torch user writes it: torchvision's transforms over Pillow's images."""

import io
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from PIL import Image
from torch.utils.data import Dataset  # pyright: ignore[reportMissingImports]

from benchmarks.peers import vision
from jaxres.data.compose.cropped import Cropped
from jaxres.data.composed import ComposedDataset

transforms = vision.load().transforms
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photographs(Dataset):
    """Random parts of photographs, mirrored at random, as float32 channels that are normalised.

    With `as_bytes` they stay uint8, for a loop that normalises on the accelerator, as JaxRes does.
    """

    def __init__(self, dataset: ComposedDataset, *, as_bytes: bool = False):
        compose = dataset.compose
        assert isinstance(compose, Cropped)
        assert compose.area is not None
        self.images = dataset.resident.images
        self.labels = dataset.source.labels
        last: list[Any] = [
            transforms.ConvertImageDtype(torch.float32),
            transforms.Normalize(MEAN, STD),
        ]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(compose.canvas, compose.area, compose.ratio),
                transforms.RandomHorizontalFlip(0.5 if compose.flip else 0.0),
                transforms.PILToTensor(),
                *([] if as_bytes else last),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """A part of an image, (3, canvas, canvas), and its label."""
        content, _ = self.images.content(index)
        image = Image.open(io.BytesIO(content)).convert("RGB")
        return self.transform(image), int(self.labels[index])
