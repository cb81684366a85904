"""Images of any size that stay encoded, in memory or in files, until they are looked at."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.data.readers import decoding
from jaxres.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class EncodedImages:
    """Encoded photographs, read as RGB squares of `side` pixels.

    `np.asarray` of them decodes all, in parallel threads.
    """

    encoded: Sequence[bytes]
    side: int
    folder: Path  # where they were read; named in errors

    def __len__(self) -> int:
        return len(self.encoded)

    @overload
    def __getitem__(self, index: int) -> UInt8[np.ndarray, "side side 3"]: ...

    @overload
    def __getitem__(self, index: slice) -> "EncodedImages": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, encoded=self.encoded[index])
        return middle(decoding.decode_image(self.encoded[index], self.folder), self.side)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del dtype, copy  # what NumPy may ask for; it is always a new array of uint8
        images = np.empty((len(self), self.side, self.side, 3), np.uint8)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            decoded = pool.map(self.__getitem__, range(len(self)))
            for image, square in zip(images, decoded, strict=True):
                image[:] = square
        return images


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files, read as RGB whenever they are looked at.

    With a `side` they are the squares that `EncodedImages` would give, otherwise of any size.
    The one looked at last is kept, read-only: a batch may be filled up with copies of it. With
    `problems` a file that is not an image is seen as a black one, and why is noted there.
    """

    paths: Sequence[Path]
    side: int | None
    problems: dict[Path, str] | None = None
    _kept: dict[int, np.ndarray] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, paths=self.paths[index])
        image = self._kept.get(index)
        if image is None:
            image = self._read(self.paths[index])
            image.flags.writeable = False
            self._kept.clear()
            self._kept[index] = image
        return image

    def _read(self, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        try:
            image = decoding.read_image(path)
        except InputError as error:
            if self.problems is None:
                raise
            self.problems.setdefault(path, str(error))
            image = np.zeros((8, 8, 3), np.uint8)
        return image if self.side is None else middle(image, self.side)


@dataclasses.dataclass(frozen=True)
class ImageArrays:
    """RGB images in memory, of any sizes; with a `side` the squares that `EncodedImages` gives."""

    arrays: Sequence[np.ndarray]  # uint8, each h w 3
    side: int | None

    def __len__(self) -> int:
        return len(self.arrays)

    @overload
    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageArrays": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, arrays=self.arrays[index])
        image = self.arrays[index]
        return image if self.side is None else middle(image, self.side)


Images = UInt8[np.ndarray, "images h w *rgb"] | EncodedImages | ImageFiles | ImageArrays


def middle(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The square in the middle of an image, as large as fits, resized to `side` pixels.

    Areas are averaged where it shrinks; where it grows it is interpolated bicubically.
    """
    height, width = image.shape[:2]
    short_side = min(height, width)
    top, left = (height - short_side) // 2, (width - short_side) // 2
    square = image[top : top + short_side, left : left + short_side]
    how = cv2.INTER_AREA if side < short_side else cv2.INTER_CUBIC
    return cv2.resize(square, (side, side), interpolation=how)  # pyright: ignore[reportReturnType]
