"""The composition of photographs as for ImageNet: a random part in training, else the middle.

A plan holds the random numbers of a few tries at a part, as shares; which of them fits an image
depends on its size, which is known when it is read.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from PIL import Image as Pillow

from jaxres.data.augment import Augmentation
from jaxres.data.compose.composition import Image, Images, OfExamples, Resident
from jaxres.data.readers import decoding, encoded
from jaxres.data.readers.stated_size import JPEG_MAGIC, stated
from jaxres.data.rng import Stream, quarters, raw_words, uniform
from jaxres.image.warp_host import Places

TRIES = 10  # at a part that fits, as torchvision has it
WORDS = 12  # of each image: one of each try, and one to mirror
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
}
LEAST_REDUCED = min(REDUCED)


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class CropPlan(NamedTuple):
    """What `Cropped` draws."""

    image: Int32[Any, " n"]  # which image of the source
    tries: Float32[Any, "n tries 4"] | None  # area, ratio, top, left, each 0 to 1; None: the middle
    mirrored: Bool[Any, " n"] | None
    ranges: Float32[Any, "n 4"] | None  # of the area and of the logarithm of the ratio
    short_side: Int32[Any, " n"]  # of the resized image whose middle is taken, pixels

    moves_itself = False

    def on_device(
        self,
        resident: Resident,
        augmentation: Augmentation | None,
        *,
        canvas: int,
    ) -> Images:
        """Nothing: parts of images of any size are taken on the host."""
        raise NotImplementedError

    def on_host(
        self,
        k: int,
        resident: Resident,
        changes: Augmentation | None,
        places: Places | None,
        *,
        canvas: int,
    ) -> Image:
        """See `Plan.on_host`."""
        del places
        index = int(self.image[k])
        if self.tries is None:
            whole = _whole(resident.images, index)
            image = middle(whole, int(self.short_side[k]), canvas)
        else:
            image = self._part(k, resident.images, index, canvas)
        return image if changes is None else image.astype(np.float32)

    def _part(self, k: int, images: Any, index: int, canvas: int) -> UInt8[np.ndarray, "s s *c"]:
        assert self.tries is not None
        assert self.ranges is not None
        assert self.mirrored is not None
        whole, reduced = _read(images, index, self.tries[k], self.ranges[k], canvas)
        box = part(self.tries[k], self.ranges[k], *whole.shape[:2])
        image = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        how = cv2.INTER_AREA if min(box.height, box.width) > canvas else cv2.INTER_LINEAR
        image = cv2.resize(image, (canvas, canvas), interpolation=how)
        if reduced:  # OpenCV has no reduced RGB
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return cv2.flip(image, 1) if self.mirrored[k] else image  # pyright: ignore[reportReturnType]

    def own(self, resident: Resident) -> tuple["CropPlan", Resident]:
        """Nothing: only the device's renderer asks for it."""
        raise NotImplementedError


def part(
    tries: Float32[np.ndarray, "tries 4"],
    ranges: Float32[np.ndarray, " 4"],
    height: int,
    width: int,
) -> Box:
    """The first try that fits an image; of none, the largest part in the middle that is allowed.

    As torchvision's RandomResizedCrop draws it: the area uniformly, the ratio of width to height
    uniformly in its logarithm, the place uniformly.
    """
    low, high, narrow, wide = ranges.tolist()
    for area, ratio, down, right in tries.tolist():  # the first fits nearly always
        pixels = height * width * (low + (high - low) * area)
        shape = math.exp(narrow + (wide - narrow) * ratio)
        chosen_w, chosen_h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < chosen_w <= width and 0 < chosen_h <= height:
            top, left = int(down * (height - chosen_h + 1)), int(right * (width - chosen_w + 1))
            return Box(top, left, chosen_h, chosen_w)
    shape = min(max(width / height, math.exp(narrow)), math.exp(wide))
    chosen_w, chosen_h = min(width, round(height * shape)), min(height, round(width / shape))
    return Box((height - chosen_h) // 2, (width - chosen_w) // 2, chosen_h, chosen_w)


def _read(
    images: Any,
    index: int,
    tries: Float32[np.ndarray, "tries 4"],
    ranges: Float32[np.ndarray, " 4"],
    canvas: int,
) -> tuple[UInt8[np.ndarray, "h w *c"], bool]:
    """An image and whether it is reduced, as BGR: JPEG gives a half, a quarter or an eighth.

    Where the part that is taken is still as large as the canvas.
    """
    if not isinstance(images, encoded.EncodedImages | encoded.ImageFiles):
        return _whole(images, index), False
    content, path = images.content(index)
    size = stated(content) if content.startswith(JPEG_MAGIC) else None
    if size is not None and min(size) >= LEAST_REDUCED * canvas:
        # It may be stored on its side, which its EXIF data tell.
        boxes = [part(tries, ranges, *each) for each in (size, size[::-1])]
        smallest = min(min(box.height, box.width) for box in boxes)
        for factor, flag in REDUCED.items():
            if smallest >= factor * canvas:
                return decoding.decode_jpeg(content, path, flag), True
    return images.decoded(content, path), False


def _whole(images: Any, index: int) -> UInt8[np.ndarray, "h w *c"]:
    """An image as it is stored, not cut to a square."""
    return images[index] if isinstance(images, np.ndarray) else images.whole(index)


def middle(
    image: UInt8[np.ndarray, "h w *c"], short_side: int, canvas: int
) -> UInt8[np.ndarray, "{canvas} {canvas} *c"]:
    """An image resized to a short side, bilinearly with antialiasing, and its middle cut out.

    Pillow's resizing, as torchvision's Resize and CenterCrop have it, to the same rounding.
    """
    height, width = image.shape[:2]
    if height <= width:
        size = (int(short_side * width / height), short_side)
    else:
        size = (short_side, int(short_side * height / width))
    resized = np.asarray(Pillow.fromarray(image).resize(size, Pillow.Resampling.BILINEAR))
    top, left = (round((side - canvas) / 2.0) for side in resized.shape[:2])
    return resized[top : top + canvas, left : left + canvas]


@dataclass(frozen=True)
class Cropped(OfExamples):
    """The composition of photographs as for ImageNet; without an area, their middle."""

    canvas: int
    short_side: int
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] = (1.0, 1.0)
    flip: bool = False

    def draw(
        self,
        examples: Int32[np.ndarray, " n"],
        *,
        seed: int,
        stream: Stream,
        epoch: int,
        first: int,
    ) -> CropPlan:
        """The plans of the examples."""
        del stream
        n = len(examples)
        short_side = np.full(n, self.short_side, np.int32)
        if self.area is None:
            return CropPlan(examples, None, None, None, short_side)
        words = raw_words(n, seed=seed, stream="crop", epoch=epoch, first=first, words=WORDS)
        drawn = np.stack([uniform(each) for each in quarters(words[:, :TRIES])], -1)
        ranges = np.array([*self.area, *np.log(self.ratio)], np.float32)
        return CropPlan(
            image=examples,
            tries=drawn.astype(np.float32),
            mirrored=uniform(words[:, TRIES]) < 0.5 * self.flip,
            ranges=np.tile(ranges, (n, 1)),
            short_side=short_side,
        )

    def digit_boxes(self, plan: CropPlan) -> None:
        """None: where an image's subject lies is not known."""
        del plan
