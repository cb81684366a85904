"""Pictures of any size that stay encoded, in memory or in files, until they are looked at."""

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
class EncodedPictures:
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
    def __getitem__(self, index: slice) -> "EncodedPictures": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, encoded=self.encoded[index])
        return middle(decoding.decode_picture(self.encoded[index], self.folder), self.side)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del dtype, copy  # what NumPy may ask for; it is always a new array of uint8
        pictures = np.empty((len(self), self.side, self.side, 3), np.uint8)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            decoded = pool.map(self.__getitem__, range(len(self)))
            for picture, square in zip(pictures, decoded, strict=True):
                picture[:] = square
        return pictures


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """Picture files, read as RGB whenever they are looked at.

    With a `side` they are the squares that `EncodedPictures` would give, otherwise of any size.
    The one looked at last is kept, read-only: a batch may be filled up with copies of it. With
    `problems` a file that is no picture is seen as a black one, and why is noted there.
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
    def __getitem__(self, index: slice) -> "PictureFiles": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return dataclasses.replace(self, paths=self.paths[index])
        picture = self._kept.get(index)
        if picture is None:
            picture = self._read(self.paths[index])
            picture.flags.writeable = False
            self._kept.clear()
            self._kept[index] = picture
        return picture

    def _read(self, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        try:
            picture = decoding.read_picture(path)
        except InputError as error:
            if self.problems is None:
                raise
            self.problems.setdefault(path, str(error))
            picture = np.zeros((8, 8, 3), np.uint8)
        return picture if self.side is None else middle(picture, self.side)


Images = UInt8[np.ndarray, "images h w *rgb"] | EncodedPictures | PictureFiles


def middle(picture: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """The square in the middle of a picture, as large as fits, resized to `side` pixels.

    Areas are averaged where it shrinks; where it grows it is interpolated bicubically.
    """
    height, width = picture.shape[:2]
    short_side = min(height, width)
    top, left = (height - short_side) // 2, (width - short_side) // 2
    square = picture[top : top + short_side, left : left + short_side]
    how = cv2.INTER_AREA if side < short_side else cv2.INTER_CUBIC
    return cv2.resize(square, (side, side), interpolation=how)  # pyright: ignore[reportReturnType]
