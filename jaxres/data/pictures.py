"""From settings to the pictures of a split, planned and, on the host, rendered."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.config import Config, DataConfig, Split
from jaxres.data import backgrounds, render_host, sources
from jaxres.data.augment import Augment, require_labels_kept
from jaxres.data.encoded import EncodedPictures
from jaxres.data.paths import data_dir
from jaxres.data.plan import Composition, Plain, Resident, ScaleBlend
from jaxres.data.scatter import Digits, Scatter, patch_side
from jaxres.data.sources import Source
from jaxres.data.textures import CONTEST_MIX, texture_bank
from jaxres.errors import InputError

Batch = dict[str, Any]
TEXTURE_CANVASES = 2  # side of a background texture, in canvases
MAX_BANK_BYTES = 4 << 30


@dataclasses.dataclass(frozen=True)
class Pictures:
    """One split, ready to be planned and rendered."""

    split: Split
    source: Source
    resident: Resident
    compose: Composition
    augment: Augment | None
    data: DataConfig
    seed: int
    examples: int  # in an epoch

    def __len__(self) -> int:
        """Number of pictures in an epoch."""
        return self.examples

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels, 0 and up, stand for."""
        return (self.compose if isinstance(self.compose, Scatter) else self.source).class_names

    def batch(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Batch:
        """The batch that shows `examples` at positions first, first + 1, ... of an epoch.

        Holds `label` (int32, n) and either `plan` and, of training pictures that are augmented,
        `augmentation` (fields of n), or `image` (uint8, n h w 3).
        """
        plan = self._plan(examples, epoch=epoch, first=first)
        scatter = self.compose if isinstance(self.compose, Scatter) else None
        labels = scatter.labels(plan) if scatter else self.source.labels[examples]
        augmentation = None
        if self.augment is not None:
            augmentation = self.augment.draw(
                len(examples), seed=self.seed, epoch=epoch, first=first
            )
            if scatter and augmentation.matrix is not None:
                plan = scatter.warped(plan, augmentation.matrix)
        if self.data.render == "device":
            planned = {"plan": plan, "label": labels}
            return planned if augmentation is None else planned | {"augmentation": augmentation}
        images = render_host.render(plan, augmentation, self.resident, data=self.data)
        return {"image": images, "label": labels}

    @functools.cached_property
    def facts(self) -> dict[str, int | str]:
        """By what the data of a split are known: `examples` in an epoch and `checksum`.

        That is the CRC-32, in hex, of labels and backgrounds and of the pictures, decoded or not.
        """
        images = self.resident.images
        stored = images.encoded if isinstance(images, EncodedPictures) else [images]
        crc = 0
        for values in (self.source.labels[: self.examples], self.resident.photos, *stored):
            plain = isinstance(values, bytes)
            crc = zlib.crc32(values if plain else np.ascontiguousarray(values).data, crc)
        return {"examples": len(self), "checksum": f"{crc:08x}"}

    def _plan(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Any:
        draw = functools.partial(self.compose.draw, seed=self.seed, stream=self.split)
        if self.data.fresh_pictures:
            return draw(examples, epoch=epoch, first=first)
        return type(self._stored)(*(field[examples] for field in self._stored))

    @functools.cached_property
    def _stored(self) -> Any:
        """The plans of all examples, the same in every epoch."""
        every = np.arange(self.examples, dtype=np.int32)
        return self.compose.draw(every, seed=self.seed, stream=self.split, epoch=0, first=0)


def open_split(config: Config, split: Split) -> Pictures:
    """Load the data set and the background bank of a split into memory.

    Raises:
        InputError: a data set is unknown, not prepared or damaged, has no such pictures, or does
            not suit the composition.
    """
    data = config.data
    folder: Path = data_dir(data.data_dir)
    source = sources.load(
        data.dataset,
        split,
        data_dir=folder,
        validation_examples=data.validation_examples,
        split_seed=data.split_seed,
        canvas=data.canvas,
    )
    limit = (
        config.train.limit_train_examples if split == "train" else config.train.limit_eval_examples
    )
    augment = None
    if split == "train" and (ranges := config.augment.resolved()).active:
        require_labels_kept(config)
        augment = Augment(ranges, data.canvas)
    if data.composition != "plain" and not source.grey:
        raise InputError(
            f"data.composition is {data.composition}, which takes grey digits, but "
            f"the pictures of data.dataset {data.dataset} have colours; allowed for them: plain"
        )
    if data.composition != "plain" and sources.DATASETS[data.dataset].composed:
        raise InputError(
            f"data.composition is {data.composition}, but the pictures of data.dataset "
            f"{data.dataset} are composed already; allowed for them: plain"
        )
    examples = len(source.labels[:limit])
    compose, photos = _composition(data, split, source, augment, folder)
    patch = 0
    if isinstance(compose, Scatter):
        patch = compose.patch
    else:  # it takes no digits but those of its examples
        source = source.first(limit)
    return Pictures(
        split=split,
        source=source,
        resident=Resident(source.images, photos, np.zeros(patch, np.uint8)),
        compose=compose,
        augment=augment,
        data=data,
        seed=config.train.seed if split == "train" else data.eval_seed,
        examples=examples,
    )


def _composition(
    data: DataConfig, split: Split, source: Source, augment: Augment | None, folder: Path
) -> tuple[Composition, UInt8[np.ndarray, "m s s *rgb"]]:
    """How pictures are composed, and their background bank."""
    if data.composition == "plain":
        return Plain(data.canvas), np.empty((0, data.canvas, data.canvas, 3), np.uint8)
    load_photos = functools.partial(
        backgrounds.load,
        data.backgrounds,
        split,
        data_dir=folder,
        canvas=data.canvas,
        photo_side=data.photo_side,
    )
    if data.composition == "scale_blend":
        photos = load_photos()
        return _scale_blend(data, photos), photos
    digits = Digits.of(np.asarray(source.images), source.labels)
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
    weights = data.texture_weights() or CONTEST_MIX
    textures = _textures(data, split, weights, load_photos)
    compose = Scatter(
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
    return compose, textures


def _textures(
    data: DataConfig,
    split: Split,
    weights: Mapping[str, float],
    load_photos: Callable[[], np.ndarray],
) -> UInt8[np.ndarray, "m s s"]:
    """Procedural textures, and grey photographs by their share of the weights."""
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
        bank = load_photos()
        side = min(side, bank.shape[1])
        first = (bank.shape[1] - side) // 2
        order = sources.shuffled(len(bank), data.split_seed)
        count = max(1, round(share * data.texture_count))
        photos = [
            cv2.cvtColor(bank[k], cv2.COLOR_RGB2GRAY)[first : first + side, first : first + side]
            for k in np.resize(order, count)
        ]
    procedural = {kind: weight for kind, weight in weights.items() if kind != "photos"}
    count = data.texture_count - len(photos)
    if not procedural or count <= 0:
        return np.stack(photos)
    bank = texture_bank(procedural, split=split, seed=data.split_seed, side=side, count=count)
    return np.concatenate([bank, np.stack(photos)]) if photos else bank


def _scale_blend(data: DataConfig, photos: UInt8[np.ndarray, "photos s s 3"]) -> ScaleBlend:
    sides = data.digit_side
    if data.digit_side_range is not None:
        low, high = data.digit_side_range
        sides = tuple(range(low, high + 1))
    return ScaleBlend(
        canvas=data.canvas,
        sides=sides,
        placement=data.placement,
        opacity=data.opacity,
        photos=photos.shape[0],
        photo_side=photos.shape[1],
    )
