"""The compositions by the names that `data.composition` takes, set up for a split."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxres.config import Augmenting, DataConfig, Split
from jaxres.data.augment import Augment
from jaxres.data.backgrounds import photographs
from jaxres.data.backgrounds.textures import CONTEST_MIX, texture_bank
from jaxres.data.compose.composition import Composed
from jaxres.data.compose.cropped import Cropped
from jaxres.data.compose.digits import Digits, patch_side
from jaxres.data.compose.plain import Plain
from jaxres.data.compose.scale_blend import ScaleBlend
from jaxres.data.compose.scatter import Scatter
from jaxres.data.datasets.dataset import Source
from jaxres.data.datasets.splits import shuffled
from jaxres.runtime.errors import InputError

TEXTURE_CANVASES = 2  # side of a background texture, in canvases
MAX_BANK_BYTES = 4 << 30


class Ingredients(NamedTuple):
    """What a composition is set up from."""

    data: DataConfig
    split: Split
    source: Source
    augment: Augment | None
    crop: Augmenting | None  # with the range of the random part that is taken of training images
    load_photos: Callable[[], UInt8[np.ndarray, "m s s 3"]]


def compose(
    data: DataConfig,
    split: Split,
    source: Source,
    augment: Augment | None,
    folder: Path,
    crop: Augmenting | None = None,
) -> Composed:
    """The composition that the settings name, and its background bank.

    With `crop`, a random part is taken of each image.

    Raises:
        InputError: the backgrounds are not there, or do not suit the settings.
    """
    load_photos = functools.partial(
        photographs.load,
        data.backgrounds,
        split,
        data_dir=folder,
        canvas=data.canvas,
        photo_side=data.photo_side,
    )
    return COMPOSITIONS[data.composition](
        Ingredients(data, split, source, augment, crop, load_photos)
    )


def _plain(given: Ingredients) -> Composed:
    data, crop = given.data, given.crop
    nothing = np.empty((0, data.canvas, data.canvas, 3), np.uint8)
    if crop is None and data.short_side is None:
        return Composed(plain(data), nothing)
    if data.render == "device":
        key = "augment.crop_area" if crop else "data.short_side"
        raise InputError(f"{key} is given with data.render device; allowed with it: host")
    if crop is None:
        return Composed(plain(data), nothing)
    short_side = data.short_side or data.canvas
    area, ratio, flip = crop.crop_area, crop.crop_ratio, crop.flip
    return Composed(Cropped(data.canvas, short_side, area, ratio, flip), nothing)


def plain(data: DataConfig) -> Plain | Cropped:
    """The composition of images as they are evaluated."""
    return Plain(data.canvas) if data.short_side is None else Cropped(data.canvas, data.short_side)


def _scale_blend(given: Ingredients) -> Composed:
    data, photos = given.data, given.load_photos()
    sides = data.digit_side
    if data.digit_side_range is not None:
        low, high = data.digit_side_range
        sides = tuple(range(low, high + 1))
    composition = ScaleBlend(
        canvas=data.canvas,
        sides=sides,
        placement=data.placement,
        opacity=data.opacity,
        photos=photos.shape[0],
        photo_side=photos.shape[1],
    )
    return Composed(composition, photos)


def _scatter(given: Ingredients) -> Composed:
    data, augment = given.data, given.augment
    digits = Digits.of(np.asarray(given.source.images), given.source.labels)
    widest = patch_side(digits, data.digit_scale)
    if widest > data.canvas:
        raise InputError(
            f"data.digit_scale is {data.digit_scale[0]} {data.digit_scale[1]}, by which digits of "
            f"{data.dataset} may need {widest} pixels; allowed: what fits data.canvas "
            f"({data.canvas})"
        )
    if augment is None:
        patch = widest
    else:
        stretch, jitter = augment.stretch(), augment.ranges.jitter
        patch = patch_side(digits, data.digit_scale, stretch=stretch, jitter=jitter)
        patch = min(patch, data.canvas)
    textures = _textures(given)
    composition = Scatter(
        canvas=data.canvas,
        digits=data.digits,
        target=data.target,
        scale=data.digit_scale,
        rotation=data.digit_rotation,
        source=digits,
        textures=textures.shape[0],
        texture_side=textures.shape[1],
        patch=patch,
    )
    return Composed(composition, textures, patch, whole_source=True)


def _textures(given: Ingredients) -> UInt8[np.ndarray, "m s s"]:
    """Procedural textures, and grey photographs by their share of the weights."""
    data = given.data
    weights = data.texture_weights() or CONTEST_MIX
    side = TEXTURE_CANVASES * data.canvas
    size = data.texture_count * side**2
    if size > MAX_BANK_BYTES:
        raise InputError(
            f"data.texture_count is {data.texture_count}, at data.canvas {data.canvas} a bank of "
            f"{size >> 20} MiB; allowed: {MAX_BANK_BYTES // side**2} textures"
        )
    photos: list[np.ndarray] = []
    share = weights.get("photos", 0.0) / sum(weights.values())
    if share:
        bank = given.load_photos()
        side = min(side, bank.shape[1])
        first = (bank.shape[1] - side) // 2
        order = shuffled(len(bank), data.split_seed)
        count = max(1, round(share * data.texture_count))
        photos = [
            cv2.cvtColor(bank[k], cv2.COLOR_RGB2GRAY)[first : first + side, first : first + side]
            for k in np.resize(order, count)
        ]
    procedural = {kind: weight for kind, weight in weights.items() if kind != "photos"}
    count = data.texture_count - len(photos)
    if not procedural or count <= 0:
        return np.stack(photos)
    bank = texture_bank(procedural, split=given.split, seed=data.split_seed, side=side, count=count)
    return np.concatenate([bank, np.stack(photos)]) if photos else bank


COMPOSITIONS: Mapping[str, Callable[[Ingredients], Composed]] = {
    "plain": _plain,
    "scale_blend": _scale_blend,
    "scatter_digits": _scatter,
}
