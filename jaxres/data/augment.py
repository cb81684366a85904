"""Augmentation of training images: one homography, gain and bias, and little else.

The ranges and their names are those of study S3's library. Everything that moves pixels is composed
into one homography, so an image is resampled once; brightness and contrast are one gain and one
bias; only jitter and erasing stand by themselves.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt32, UInt64

from jaxres.config import Augmenting, Config
from jaxres.config.data import MAX_ROTATION
from jaxres.data.rng import below, quarters, raw_words, swapped, uniform
from jaxres.runtime.errors import InputError

WORDS = 16
STRETCH_SAMPLES = 4096  # augmentations looked at for how far they stretch an image
GREY = 128.0  # the grey level that contrast leaves as it is
# Red, green and blue as one sees their grey.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width, as by Zhong et al. 2020


class Augmentation(NamedTuple):
    """What is done to n images; what no setting asks for is None."""

    # From the pixels of the new image to those of the old one: homographies of (column, row, 1)
    # with pixel centres at whole numbers. Beyond its border the old one is mirrored.
    matrix: Float32[Any, "n 3 3"] | None
    jitter: Float32[Any, " n"] | None  # pixels by which the place of each pixel is moved at most
    noise: UInt32[Any, " n"] | None  # seeds of that
    tone: Float32[Any, "n 2"] | None  # clip(tone[0] * grey level + tone[1], 0, 255)
    erase: Int32[Any, "n 5"] | None  # first row and column, height and width, grey level
    colour: Float32[Any, " n"] | None = None  # factor on the distance from grey


@dataclasses.dataclass(frozen=True)
class Augment:
    """Draws `Augmentation`s for images of `side` pixels by `ranges`."""

    ranges: Augmenting
    side: int

    def draw(self, n: int, *, seed: int, epoch: int, first: int) -> Augmentation:
        """What is done to the images at positions first, first + 1, ... of an epoch."""
        ranges = self.ranges
        words = raw_words(n, seed=seed, stream="augment", epoch=epoch, first=first, words=WORDS)
        return Augmentation(
            matrix=self._matrices(words).astype(np.float32) if ranges.moves else None,
            jitter=np.full(n, ranges.jitter, np.float32) if ranges.jitter else None,
            noise=(words[:, 12] >> np.uint64(32)).astype(np.uint32) if ranges.jitter else None,
            tone=self._tones(words[:, 13]).astype(np.float32) if ranges.tones else None,
            erase=self._erased(words[:, 14:]) if ranges.erase else None,
            colour=self._colours(words[:, 12]) if ranges.colours else None,
        )

    def stretch(self) -> float:
        """About the most by which lengths grow anywhere on an image: that of many, and a tenth."""
        if not self.ranges.moves:
            return 1.0
        drawn = self.draw(STRETCH_SAMPLES, seed=0, epoch=0, first=0).matrix
        assert drawn is not None
        ends = np.array([(x, y, 1) for x in (0, self.side - 1) for y in (0, self.side - 1)])
        return 1.1 * _growth(np.linalg.inv(drawn.astype(np.float64)), ends)

    def _matrices(self, words: UInt64[np.ndarray, "n words"]) -> Float64[np.ndarray, "n 3 3"]:
        """In units of half a side from the middle, then in pixels."""
        ranges, n = self.ranges, len(words)
        angle = np.deg2rad(uniform(words[:, 0], -ranges.rotate, ranges.rotate))
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = _affine(n, cos, -sin, sin, cos)
        zoom = uniform(swapped(words[:, 0]), *ranges.zoom)
        about = (uniform(words[:, 1], -1.0, 1.0), uniform(swapped(words[:, 1]), -1.0, 1.0))
        zooming = _affine(n, 1 / zoom, 0, 0, 1 / zoom)
        zooming[:, :2, 2] = np.stack(about, -1) * (1 - 1 / zoom)[:, None]
        squeezing = _affine(n, 1 / uniform(words[:, 2], *ranges.squish), 0, 0, 1)
        mirror = np.where(uniform(swapped(words[:, 2])) < 0.5 * ranges.flip, -1.0, 1.0)
        framing = _affine(n, mirror, 0, 0, 1)
        padding = ranges.crop_padding
        shift = [below(word, 2 * padding + 1) for word in (words[:, 3], swapped(words[:, 3]))]
        framing[:, :2, 2] = (np.stack(shift, -1) - padding) * 2 / self.side
        drawn = framing @ squeezing @ zooming @ rotation @ _quadrilateral(self._corners(words))
        drawn[uniform(words[:, 11]) >= ranges.share] = np.eye(3)
        half, middle = self.side / 2, (self.side - 1) / 2
        to_pixels = np.array([[half, 0, middle], [0, half, middle], [0, 0, 1]])
        return to_pixels @ drawn @ np.linalg.inv(to_pixels)

    def _corners(self, words: UInt64[np.ndarray, "n words"]) -> Float64[np.ndarray, "n 4 2"]:
        """How far perspective, tilt and skew move the corners: each, those of an edge, one."""
        ranges, n = self.ranges, np.arange(len(words))
        drawn = np.stack([words[:, 4:8], swapped(words[:, 4:8])], -1)
        moved = uniform(drawn, -ranges.perspective, ranges.perspective)
        # Tilted about one axis, the image's edges along it grow and shrink: a trapezium.
        tilt = uniform(words[:, 8], -ranges.tilt, ranges.tilt)
        axis = below(swapped(words[:, 8]), 2)
        signs = np.prod(CORNERS, axis=1)
        moved[n, :, axis] += tilt[:, None] * signs
        skew = uniform(words[:, 9], -ranges.skew, ranges.skew)
        moved[n, below(words[:, 10], 4), below(swapped(words[:, 9]), 2)] += skew
        return moved

    def _tones(self, words: UInt64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 2"]:
        gain = uniform(words, *self.ranges.contrast)
        bias = 255 * uniform(swapped(words), -self.ranges.lighting, self.ranges.lighting)
        return np.stack([gain, GREY * (1 - gain) + bias], -1)

    def _colours(self, words: UInt64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        return uniform(swapped(words), *self.ranges.saturation).astype(np.float32)

    def _erased(self, words: UInt64[np.ndarray, "n 2"]) -> Int32[np.ndarray, "n 5"]:
        """Rectangles, most of them empty when few images are erased."""
        for_area, for_share, *_ = quarters(words[:, 0])
        for_aspect, for_column, for_row, for_grey = quarters(words[:, 1])
        share = uniform(for_share)
        area = uniform(for_area, *self.ranges.erase_area) * self.side**2
        low, high = np.log(ERASED_ASPECT)
        aspect = np.exp(uniform(for_aspect, low, high))
        height = np.clip(np.sqrt(area * aspect), 1, self.side).astype(np.int32)
        width = np.clip(np.sqrt(area / aspect), 1, self.side).astype(np.int32)
        row = below(for_row, self.side - height + 1)
        column = below(for_column, self.side - width + 1)
        chosen = share < self.ranges.erase
        grey = below(for_grey, 256)
        return np.stack([row, column, height * chosen, width * chosen, grey], -1).astype(np.int32)


CORNERS = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])  # (column, row)


def require_labels_kept(config: Config, *, digits: bool) -> None:
    """Refuse what would break the labels of digits, if the dataset's images are such.

    Raises:
        InputError: they would be mirrored, or turned so far that a 6 looks like a 9.
    """
    data, ranges = config.data, config.augment.resolved()
    if not digits:
        return
    if ranges.flip:
        raise InputError(
            f"augment.flip is true for {data.dataset}; allowed: false, because mirrored digits are "
            "not digits"
        )
    turned = data.digit_rotation if data.composition == "scatter_digits" else 0
    if turned + ranges.rotate > MAX_ROTATION:
        raise InputError(
            f"augment.rotate is {ranges.rotate:g} for {data.dataset}; allowed: 0 to "
            f"{MAX_ROTATION - turned:g}, beyond which a 6 looks like a 9"
        )


def _affine(n: int, a: Any, b: Any, c: Any, d: Any) -> Float64[np.ndarray, "{n} 3 3"]:
    matrix = np.zeros((n, 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = a, b, c, d
    matrix[:, 2, 2] = 1
    return matrix


def _quadrilateral(moved: Float64[np.ndarray, "n 4 2"]) -> Float64[np.ndarray, "n 3 3"]:
    """The homography that moves the corners of [-1, 1]^2 so far (Heckbert 1989, section 2.2)."""
    x, y = np.moveaxis(CORNERS + moved, (2, 1), (0, 1))
    x1, x2, sx = x[1] - x[2], x[3] - x[2], x[0] - x[1] + x[2] - x[3]
    y1, y2, sy = y[1] - y[2], y[3] - y[2], y[0] - y[1] + y[2] - y[3]
    area = x1 * y2 - x2 * y1
    g, h = (sx * y2 - x2 * sy) / area, (x1 * sy - sx * y1) / area
    rows = [
        [x[1] - x[0] + g * x[1], x[3] - x[0] + h * x[3], x[0]],
        [y[1] - y[0] + g * y[1], y[3] - y[0] + h * y[3], y[0]],
        [g, h, np.ones_like(g)],
    ]
    from_unit_square = np.moveaxis(np.array(rows), 2, 0)
    return from_unit_square @ np.array([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]])


def _growth(matrices: Float64[np.ndarray, "n 3 3"], places: Int64[np.ndarray, "m 3"]) -> float:
    """The largest singular value of the homographies' derivatives where they lead to `places`."""
    reached = np.linalg.inv(matrices) @ places.T
    x, y, w = np.moveaxis(matrices @ (reached / reached[:, 2:]), 1, 0)
    linear, row = matrices[:, None, :2, :2], matrices[:, None, None, 2, :2]
    at = np.stack([x / w, y / w], -1)[..., None]
    return float(np.linalg.norm((linear - at * row) / w[..., None, None], 2, axis=(-2, -1)).max())
