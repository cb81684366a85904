"""Plans: the few random numbers that describe a picture before a renderer makes its pixels.

The plan of a picture is a function of (seed, stream, epoch, position in the epoch) alone; see
`words`. Plans are rows of n pictures, with NumPy arrays on the host, JAX arrays in a step.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from jaxres.data.scatter import Scatter, ScatterPlan
from jaxres.data.words import Stream, below, raw_words


class ScaleBlendPlan(NamedTuple):
    """What `ScaleBlend` draws."""

    digit: Int32[Any, " n"]  # which digit of the source
    photo: Int32[Any, " n"]  # which square of the background bank
    crop: Int32[Any, "n 2"]  # (row, column) of the canvas in that square, pixels
    side: Int32[Any, " n"]  # of the digit's square, pixels
    corner: Int32[Any, "n 2"]  # (row, column) of the digit's square on the canvas, pixels
    opacity: Float32[Any, " n"]  # of the digit's square, 0 to 1


class PlainPlan(NamedTuple):
    """What `Plain` draws."""

    image: Int32[Any, " n"]  # which picture of the source


Plan = ScaleBlendPlan | PlainPlan | ScatterPlan


class Resident(NamedTuple):
    """What the renderers take pixels from: on the devices, or on the host."""

    images: Any  # of a split: uint8 "images h w *rgb", on the host also `EncodedPictures`
    photos: UInt8[Any, "photos s s *rgb"]  # the background bank
    patch: UInt8[Any, " p"]  # zeros; p is the side of a scattered digit's patch, 0 without them

    def decoded(self) -> "Resident":
        """With the pictures as an array, to be put on the devices."""
        return self._replace(images=np.asarray(self.images))


@dataclasses.dataclass(frozen=True)
class ScaleBlend:
    """The composition of study S1: one scaled digit blended over a crop of a photograph.

    `sides` are the sides (pixels) a picture draws from, each as likely as the others. `photos`
    and `photo_side` are the number of squares in the background bank and their side (pixels).
    """

    canvas: int
    sides: tuple[int, ...]
    placement: Literal["center", "random"]
    opacity: float
    photos: int
    photo_side: int

    def draw(
        self, digits: Int32[np.ndarray, " n"], *, seed: int, stream: Stream, epoch: int, first: int
    ) -> ScaleBlendPlan:
        """The plans of the pictures at positions first, first + 1, ... of an epoch.

        `digits` says which digit each shows (see `epoch_order`).
        """
        n = len(digits)
        words = raw_words(n, seed=seed, stream=stream, epoch=epoch, first=first)
        side = np.asarray(self.sides, np.int32)[below(words[:, 0], len(self.sides))]
        margin = self.photo_side - self.canvas + 1
        if self.placement == "center":
            offset = (self.canvas - side) // 2
            corner = np.stack([offset, offset], axis=1)
        else:
            room = self.canvas - side + 1
            corner = np.stack([below(words[:, 4], room), below(words[:, 5], room)], axis=1)
        return ScaleBlendPlan(
            digit=digits,
            photo=below(words[:, 1], self.photos),
            crop=np.stack([below(words[:, 2], margin), below(words[:, 3], margin)], axis=1),
            side=side,
            corner=corner,
            opacity=np.full(n, self.opacity, np.float32),
        )


@dataclasses.dataclass(frozen=True)
class Plain:
    """The composition of a data set's own pictures, resized to the canvas."""

    canvas: int

    def draw(
        self, images: Int32[np.ndarray, " n"], *, seed: int, stream: Stream, epoch: int, first: int
    ) -> PlainPlan:
        """The plans of `images`; see `ScaleBlend.draw`."""
        del seed, stream, epoch, first  # nothing is left to chance
        return PlainPlan(images)


Composition = ScaleBlend | Plain | Scatter
