"""Images of any size that stay encoded, in memory or in files, until they are looked at."""

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from jaxtyping import Int64, UInt8

from jaxres.data.readers import archives, decoding
from jaxres.data.readers.record_files import RecordFiles
from jaxres.runtime.errors import InputError

Several = slice | Int64[np.ndarray, " n"]  # which of the images


@dataclasses.dataclass(frozen=True)
class EncodedImages:
    """Encoded photographs, in memory or in ArrayRecord files, read as RGB squares of `side` pixels.

    `np.asarray` of them decodes all, in parallel threads.
    """

    encoded: Sequence[bytes] | RecordFiles
    side: int
    folder: Path  # where they were read; named in errors

    def __len__(self) -> int:
        return len(self.encoded)

    @overload
    def __getitem__(self, index: int) -> UInt8[np.ndarray, "side side 3"]: ...

    @overload
    def __getitem__(self, index: Several) -> "EncodedImages": ...

    def __getitem__(self, index: int | Several) -> Any:
        if isinstance(index, int):
            return middle(self.whole(index), self.side)
        if isinstance(self.encoded, RecordFiles):
            return dataclasses.replace(self, encoded=self.encoded.only(index))
        return dataclasses.replace(self, encoded=_only(self.encoded, index))

    def whole(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """An image as it is stored, not cut to a square."""
        return self.decoded(*self.content(index))

    def content(self, index: int) -> tuple[bytes, Path]:
        """An image's bytes, and where they were read."""
        return self.encoded[index], self.folder

    def decoded(self, content: bytes, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        """The whole image in such bytes."""
        return decoding.decode_image(content, path)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del dtype, copy  # what NumPy may ask for; it is always a new array of uint8
        return _decoded(self, self.side)

    def names(self) -> list[str]:
        """The examples' numbers in the dataset where it is in files, else among these."""
        if isinstance(self.encoded, RecordFiles):
            return [str(k) for k in self.encoded.chosen]
        return [str(k) for k in range(len(self))]

    def identity(self) -> Iterator[bytes]:
        """What tells these images from others: in memory, all bytes."""
        if isinstance(self.encoded, RecordFiles):
            return self.encoded.identity()
        return iter(self.encoded)


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files, read as RGB whenever they are looked at.

    With a `side` they are the squares that `EncodedImages` would give, otherwise of any size.
    The one looked at last is kept, read-only: a batch may be filled up with copies of it. With
    `problems` a file that is not an image is seen as a black one, and why is noted there.
    """

    paths: Sequence[Path | str]
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
    def __getitem__(self, index: Several) -> "ImageFiles": ...

    def __getitem__(self, index: int | Several) -> Any:
        if not isinstance(index, int):
            return dataclasses.replace(self, paths=_only(self.paths, index))
        image = self.whole(index)
        return image if self.side is None else middle(image, self.side)

    def whole(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """An image as it is stored, not cut to a square."""
        image = self._kept.get(index)
        if image is None:
            image = self._read(Path(self.paths[index]))
            image.flags.writeable = False
            self._kept.clear()
            self._kept[index] = image
        return image

    def content(self, index: int) -> tuple[bytes, Path]:
        """An image's bytes, and its file."""
        path = Path(self.paths[index])
        return archives.read_bytes(path), path

    def decoded(self, content: bytes, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        """The whole image in such bytes."""
        return decoding.decode_file(content, path)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del dtype, copy
        if self.side is None:
            raise TypeError("image files of any size are no array: give a side")
        return _decoded(self, self.side)

    def names(self) -> list[str]:
        """The files."""
        return [str(path) for path in self.paths]

    def identity(self) -> Iterator[bytes]:
        """What tells these images from others: names in their folder, and sizes."""
        for path in map(Path, self.paths):
            size = archives.size_of(path)
            yield f"{path.parent.name}/{path.name} {size}".encode(errors="replace")

    def _read(self, path: Path) -> UInt8[np.ndarray, "h w 3"]:
        try:
            return decoding.read_image(path)
        except InputError as error:
            if self.problems is None:
                raise
            self.problems.setdefault(path, str(error))
            return np.zeros((8, 8, 3), np.uint8)


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
    def __getitem__(self, index: Several) -> "ImageArrays": ...

    def __getitem__(self, index: int | Several) -> Any:
        if not isinstance(index, int):
            return dataclasses.replace(self, arrays=_only(self.arrays, index))
        image = self.whole(index)
        return image if self.side is None else middle(image, self.side)

    def whole(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """An image as it is given, not cut to a square."""
        return self.arrays[index]

    def identity(self) -> Iterator[bytes]:
        """What tells these images from others: their pixels."""
        return (np.ascontiguousarray(array).tobytes() for array in self.arrays)


Images = UInt8[np.ndarray, "images h w *rgb"] | EncodedImages | ImageFiles | ImageArrays


def _only(items: Sequence[Any], chosen: Several) -> Sequence[Any]:
    return items[chosen] if isinstance(chosen, slice) else [items[k] for k in chosen.tolist()]


def _decoded(
    images: EncodedImages | ImageFiles, side: int
) -> UInt8[np.ndarray, "images {side} {side} 3"]:
    """All of them, decoded in parallel threads."""
    array = np.empty((len(images), side, side, 3), np.uint8)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        squares = pool.map(images.__getitem__, range(len(images)))
        for image, square in zip(array, squares, strict=True):
            image[:] = square
    return array


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
