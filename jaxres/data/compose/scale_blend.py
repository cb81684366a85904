"""The composition `scale_blend` of study S1: one scaled digit blended over a photograph."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Num

from jaxres.data.augment import Augmentation
from jaxres.data.compose.composition import Image, Images, OfExamples, Resident, only_own
from jaxres.data.rng import Stream, below, raw_words
from jaxres.image.blend import blend
from jaxres.image.resize import box_mask, resize_onto
from jaxres.image.warp_host import Places


class ScaleBlendPlan(NamedTuple):
    """What `ScaleBlend` draws."""

    digit: Int32[Any, " n"]  # which digit of the source
    photo: Int32[Any, " n"]  # which square of the background bank
    crop: Int32[Any, "n 2"]  # (row, column) of the canvas in that square, pixels
    side: Int32[Any, " n"]  # of the digit's square, pixels
    corner: Int32[Any, "n 2"]  # (row, column) of the digit's square on the canvas, pixels
    opacity: Float32[Any, " n"]  # of the digit's square, 0 to 1

    moves_itself = False

    def on_device(
        self,
        resident: Resident,
        augmentation: Augmentation | None,
        *,
        canvas: int,
    ) -> Images:
        """See `Plan.on_device`."""
        exact = augmentation is not None

        def crop(photo: Array, corner: Array) -> Array:
            start = (photo, corner[0], corner[1], 0)
            return jax.lax.dynamic_slice(resident.photos, start, (1, canvas, canvas, 3))[0]

        background = jax.vmap(crop)(self.photo, self.crop)
        digits = jnp.take(resident.images, self.digit, axis=0)
        digit = resize_onto(digits, self.side, self.corner, canvas=canvas, exact=exact)
        rows = box_mask(self.side, self.corner[:, 0], size=canvas)
        columns = box_mask(self.side, self.corner[:, 1], size=canvas)
        inside = rows[:, :, None] & columns[:, None, :]
        mixed = blend(background, digit, self.opacity, exact=exact)
        return jnp.where(inside[..., None], mixed, background)

    def on_host(
        self,
        k: int,
        resident: Resident,
        changes: Augmentation | None,
        places: Places | None,
        *,
        canvas: int,
    ) -> Image:
        """See `Plan.on_host`. Only the digit's square is touched beyond copying the crop."""
        del places
        exact = changes is not None
        row, column = self.crop[k]
        image = resident.photos[self.photo[k], row : row + canvas, column : column + canvas].copy()
        digit = resident.images[self.digit[k]]
        if exact:
            image, digit = image.astype(np.float32), digit.astype(np.float32)
        side, opacity = int(self.side[k]), float(self.opacity[k])
        scaled = cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC)
        if exact:
            scaled = np.clip(scaled, 0, 255)
        row, column = self.corner[k]
        square = image[row : row + side, column : column + side]
        top = cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(square, 1 - opacity, top, opacity, 0, dst=square)
        return image

    def own(self, resident: Resident) -> tuple["ScaleBlendPlan", Resident]:
        """See `Plan.own`."""
        numbers = np.arange(len(self.digit), dtype=np.int32)
        return self._replace(digit=numbers), only_own(resident, self.digit)


@dataclass(frozen=True)
class ScaleBlend(OfExamples):
    """The composition of study S1: one scaled digit blended over a crop of a photograph.

    `sides` are the sides (pixels) of which each digit draws one, all equally likely. `photos`
    and `photo_side` are the number of squares in the background bank and their side (pixels).
    """

    canvas: int
    sides: tuple[int, ...]
    placement: Literal["center", "random"]
    opacity: float
    photos: int
    photo_side: int

    def draw(
        self,
        examples: Int32[np.ndarray, " n"],
        *,
        seed: int,
        stream: Stream,
        epoch: int,
        first: int,
    ) -> ScaleBlendPlan:
        """See `Composition.draw`."""
        n = len(examples)
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
            digit=examples,
            photo=below(words[:, 1], self.photos),
            crop=np.stack([below(words[:, 2], margin), below(words[:, 3], margin)], axis=1),
            side=side,
            corner=corner,
            opacity=np.full(n, self.opacity, np.float32),
        )

    def digit_boxes(self, plan: ScaleBlendPlan) -> Num[np.ndarray, "n 4"]:
        """The digits' squares."""
        return np.concatenate([plan.corner, plan.corner + plan.side[:, None]], axis=1)
