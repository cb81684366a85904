"""The composition of studies S3 and S4: some transformed digits over a noisy background.

The contest's image arrays are not public. What is known of its digits stands behind the numbers
here: white, turned, of native size (on a canvas of 128 pixels boxes of 12 to 26 by 7 to 24), whole
on the canvas, their cores at 255, touching now and then.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, Int32, Num, UInt64

from jaxres.data.augment import Augmentation
from jaxres.data.compose import crops
from jaxres.data.compose.composition import Image, Images, Resident, decoded, row
from jaxres.data.compose.digits import NATIVE_SIDE, Digits
from jaxres.data.rng import Stream, below, raw_words, swapped, uniform
from jaxres.image import warp
from jaxres.image.warp_host import Places, warped

# Ink of grey level v is laid on with the opacity clip(0.5 + steepness * (v / 255 - threshold)).
STEEPNESS, THRESHOLD = (2.0, 5.0), (0.25, 0.45)  # their products are 0.5 or more
GAIN, BIAS = (0.85, 1.15), (-10.0, 10.0)  # of the background's grey levels
PLACES = 4  # tried for a digit; it takes the first one free of other digits, else the last
TOUCH = 3  # pixels by which the boxes of two digits may overlap and still count as free
IMAGE_WORDS, DIGIT_WORDS = 8, 4 + PLACES

Target = Literal["largest_value", "count", "sum"]


class ScatterPlan(NamedTuple):
    """What `Scatter` draws: d digits, some of them perhaps not `present`.

    Matrices are homographies of (column, row, 1) with pixel centres at whole numbers.
    """

    digit: Int32[Any, "n d"]  # which digit of the source
    present: Bool[Any, "n d"]  # whether it is shown
    to_digit: Float32[Any, "n d 3 3"]  # from the image's pixels to the digit's
    corner: Int32[Any, "n d 2"]  # (row, column) of the part of the image that holds the digit
    ink: Float32[Any, "n d 2"]  # opacity is clip(ink[0] * grey level / 255 - ink[1], 0, 1)
    texture: Int32[Any, " n"]  # which square of the background bank
    to_texture: Float32[Any, "n 3 3"]  # from the image's pixels to that square's
    tone: Float32[Any, "n 2"]  # of the background: clip(tone[0] * grey level + tone[1], 0, 255)

    moves_itself = True

    def on_device(
        self,
        resident: Resident,
        augmentation: Augmentation | None,
        *,
        canvas: int,
    ) -> Images:
        """See `Plan.on_device`: white digits over their background, never rounded."""
        matrix, jitter, noise = (None,) * 3 if augmentation is None else augmentation[:3]
        n, d = self.digit.shape
        texture = crops.warped(resident.photos, self, canvas, matrix, jitter, noise)
        gain, bias = (self.tone[:, k, None, None] for k in (0, 1))
        background = jnp.clip(gain * texture + bias, 0, 255)

        def each(field: Array) -> Array:
            return field.reshape(n * d, *field.shape[2:])

        if jitter is not None and noise is not None:
            jitter, noise = jnp.repeat(jitter, d), jnp.repeat(noise, d)
        corner = each(self.corner)
        rows, columns = (corner[:, axis, None] + jnp.arange(resident.patch) for axis in (0, 1))
        places = warp.pixel_places(rows, columns, jitter, noise)
        places = warp.transformed(each(self.to_digit), *places)
        level = warp.sampled(resident.images, each(self.digit), *places, border="black")
        gain, floor = (each(self.ink)[:, k, None, None] for k in (0, 1))
        opacity = jnp.clip(gain / 255 * level - floor, 0, 1) * each(self.present)[:, None, None]
        opacity = opacity.reshape(n, d, *opacity.shape[1:])
        darkness = 255 - background
        for j in range(d):  # one by one: all canvases together would need d times the memory
            darkness *= 1 - warp.placed(opacity[:, j], self.corner[:, j], side=canvas)
        return (255 - darkness)[..., None]

    def on_host(
        self,
        k: int,
        resident: Resident,
        changes: Augmentation | None,
        places: Places | None,
        *,
        canvas: int,
    ) -> Image:
        """See `Plan.on_host`; never rounded."""
        plan: ScatterPlan = row(self, k)
        texture = resident.photos[plan.texture]
        if places is None and (changes is None or changes.matrix is None):
            texture = crops.crop_on_host(texture, plan.to_texture, canvas)
        else:
            whole = np.s_[0:canvas, 0:canvas]
            texture = warped(texture, plan.to_texture, places, whole, border="mirror")
        gain, bias = plan.tone
        darkness = 255 - np.clip(gain * texture.astype(np.float32) + bias, 0, 255)
        patch = resident.patch
        for j in np.flatnonzero(plan.present):
            digit = resident.images[plan.digit[j]]
            top, left = np.clip(plan.corner[j], 0, canvas).tolist()
            bottom, right = np.clip(plan.corner[j] + patch, 0, canvas).tolist()
            ink = plan.ink[j]
            window = np.s_[top:bottom, left:right]
            level = warped(digit, plan.to_digit[j], places, window, border="black")
            darkness[window] *= 1 - np.clip(ink[0] / 255 * level - ink[1], 0, 1)
        return 255 - darkness

    def own(self, resident: Resident) -> tuple["ScatterPlan", Resident]:
        """See `Plan.own`: it may show any digit."""
        return self, decoded(resident)


@dataclasses.dataclass(frozen=True, eq=False)
class Scatter:
    """The composition `scatter_digits`.

    Args:
        canvas: Side of the image, pixels.
        digits: How many digits an image may show; each number is as likely as the others.
        target: What the label is: the largest digit, their number, or their sum.
        scale: Of a digit, each way by itself; at 1 its square has `NATIVE_SIDE` pixels.
        rotation: Degrees, at most, either way.
        source: The digits.
        textures: Number of squares in the background bank.
        texture_side: Their side, pixels.
        patch: Side of the part of the image in which a digit is drawn, pixels; see `patch_side`.
    """

    canvas: int
    digits: tuple[int, ...]
    target: Target
    scale: tuple[float, float]
    rotation: float
    source: Digits
    textures: int
    texture_side: int
    patch: int

    def class_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """What the target may be, whatever the dataset's classes."""
        del names
        most = max(self.digits)
        largest = len(self.source.class_sizes) - 1
        last = {"largest_value": largest, "count": most, "sum": largest * most}[self.target]
        return tuple(str(value) for value in range(last + 1))

    def draw(
        self,
        examples: Int32[np.ndarray, " n"],
        *,
        seed: int,
        stream: Stream,
        epoch: int,
        first: int,
    ) -> ScatterPlan:
        """The plans of the images at positions first, first + 1, ... of an epoch.

        A digit is of each class with the same probability, whatever the source's share of it.
        """
        n, d = len(examples), max(self.digits)
        words = raw_words(
            n,
            seed=seed,
            stream=stream,
            epoch=epoch,
            first=first,
            words=IMAGE_WORDS + d * DIGIT_WORDS,
        )
        count = np.asarray(self.digits, np.int32)[below(words[:, 0], len(self.digits))]
        present = np.arange(d) < count[:, None]
        own = words[:, IMAGE_WORDS:].reshape(n, d, DIGIT_WORDS)
        sizes = self.source.class_sizes
        label = below(own[..., 0], len(sizes))
        member = below(swapped(own[..., 0]), sizes[label])
        digit = self.source.by_class[(np.cumsum(sizes) - sizes)[label] + member]
        steepness = uniform(own[..., 3], *STEEPNESS)
        floor = steepness * uniform(swapped(own[..., 3]), *THRESHOLD) - 0.5
        to_digit = self._digit_places(own, digit, present)
        return ScatterPlan(
            digit=digit,
            present=present,
            to_digit=to_digit.astype(np.float32),
            corner=self.corners(digit, to_digit),
            ink=np.stack([steepness, floor], -1).astype(np.float32),
            texture=below(words[:, 1], self.textures),
            to_texture=crops.places(words, self.texture_side, self.canvas).astype(np.float32),
            tone=np.stack([uniform(words[:, 4], *GAIN), uniform(words[:, 5], *BIAS)], -1).astype(
                np.float32
            ),
        )

    def labels(
        self, plan: ScatterPlan, labels: Int32[np.ndarray, " n"] | None = None
    ) -> Int32[np.ndarray, " n"]:
        """What the images of a plan show, by `target`."""
        del labels
        if self.target == "count":
            return plan.present.sum(-1, dtype=np.int32)
        values = np.where(plan.present, self.source.labels[plan.digit], 0)
        return (values.max(-1) if self.target == "largest_value" else values.sum(-1)).astype(
            np.int32
        )

    def moved(self, plan: ScatterPlan, matrix: Num[np.ndarray, "n 3 3"]) -> ScatterPlan:
        """See `Composition.moved`."""
        to_digit = plan.to_digit @ matrix[:, None]
        return plan._replace(
            to_digit=to_digit.astype(np.float32),
            corner=self.corners(plan.digit, to_digit),
            to_texture=(plan.to_texture @ matrix).astype(np.float32),
        )

    def digit_boxes(self, plan: ScatterPlan) -> Num[np.ndarray, "n 4"] | None:
        """What a single digit's ink reaches."""
        if plan.present.shape[1] != 1:
            return None
        low, high = (ends[:, 0] for ends in self.spans(plan.digit, plan.to_digit))
        return np.clip(np.concatenate([np.floor(low), np.ceil(high) + 1], 1), 0, self.canvas)

    def corners(
        self, digit: Int32[np.ndarray, "n d"], to_digit: Num[np.ndarray, "n d 3 3"]
    ) -> Int32[np.ndarray, "n d 2"]:
        """Where the square of `patch` pixels begins that has the digit's ink in its middle.

        It lies on the canvas: of ink that hangs over the border, all that is visible is in it.
        """
        low, high = self.spans(digit, to_digit)
        corner = np.ceil((low + high) / 2 - self.patch / 2)
        return np.clip(corner, 0, max(0, self.canvas - self.patch)).astype(np.int32)

    def spans(
        self, digit: Int32[np.ndarray, "n d"], to_digit: Num[np.ndarray, "n d 3 3"]
    ) -> tuple[Float64[np.ndarray, "n d 2"], Float64[np.ndarray, "n d 2"]]:
        """First and last (row, column) of the image that a digit's ink reaches."""
        left, right, top, bottom = np.moveaxis(self.source.ink[digit], -1, 0)
        # Interpolation spreads ink by up to a pixel of the source.
        columns = np.stack([left - 1, right + 1, left - 1, right + 1], -1)
        rows = np.stack([top - 1, top - 1, bottom + 1, bottom + 1], -1)
        points = np.stack([columns, rows, np.ones_like(rows)], -2)
        x, y, w = np.moveaxis(np.linalg.inv(to_digit.astype(np.float64)) @ points, -2, 0)
        places = np.stack([y / w, x / w], -2)
        return places.min(-1), places.max(-1)

    def _digit_places(
        self,
        words: UInt64[np.ndarray, "n d words"],
        digit: Int32[np.ndarray, "n d"],
        present: Bool[np.ndarray, "n d"],
    ) -> Float64[np.ndarray, "n d 3 3"]:
        unit = NATIVE_SIDE / self.source.side
        scale = tuple(factor * unit for factor in self.scale)
        angle = np.deg2rad(uniform(words[..., 1], -self.rotation, self.rotation))
        wide, tall = uniform(words[..., 2], *scale), uniform(swapped(words[..., 2]), *scale)
        cos, sin = np.cos(angle), np.sin(angle)
        left, right, top, bottom = np.moveaxis(self.source.ink[digit], -1, 0)
        # How far the turned box of ink reaches from its middle: (row, column).
        across, down = (right - left + 1) * wide / 2, (bottom - top + 1) * tall / 2
        steep, flat = np.abs(sin), np.abs(cos)
        reach = np.stack([steep * across + flat * down, flat * across + steep * down], -1)
        row, column = np.moveaxis(self._centres(words[..., 4:], reach, present), -1, 0)
        matrix = np.zeros((*digit.shape, 3, 3))
        matrix[..., 0, 0], matrix[..., 0, 1] = cos / wide, sin / wide
        matrix[..., 1, 0], matrix[..., 1, 1] = -sin / tall, cos / tall
        matrix[..., 0, 2] = (left + right) / 2 - (cos * column + sin * row) / wide
        matrix[..., 1, 2] = (top + bottom) / 2 - (cos * row - sin * column) / tall
        matrix[..., 2, 2] = 1
        return matrix

    def _centres(
        self,
        words: UInt64[np.ndarray, "n d places"],
        reach: Float64[np.ndarray, "n d 2"],
        present: Bool[np.ndarray, "n d"],
    ) -> Float64[np.ndarray, "n d 2"]:
        """The middles of the digits, (row, column), so that each is whole on the canvas."""
        room = self.canvas - 2 * reach
        share = np.stack([uniform(words), uniform(swapped(words))], -1)
        tried = reach[:, :, None] - 0.5 + share * room[:, :, None]  # n d places 2
        centres = tried[:, :, -1].copy()
        for j in range(1, centres.shape[1]):
            free = np.ones(tried[:, j, :, 0].shape, bool)
            for other in range(j):
                apart = np.abs(tried[:, j] - centres[:, None, other])
                clear = (apart > (reach[:, j] + reach[:, other] - TOUCH)[:, None]).any(-1)
                free &= clear | ~present[:, other, None]
            choice = np.where(free.any(-1), free.argmax(-1), PLACES - 1)
            centres[:, j] = tried[np.arange(len(tried)), j, choice]
        return centres
