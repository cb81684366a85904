"""What a composition is: it draws plans, and its plans know how they become pixels.

The plan of an image is a few random numbers, a function of (seed, stream, epoch, position in the
epoch) alone; see `rng`. Plans are rows of n images, NumPy arrays on the host and JAX arrays in a
step. A composition and its plan live in one file, which `compositions` lists.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int32, Num, UInt8

from jaxres.data.augment import Augmentation
from jaxres.data.rng import Stream
from jaxres.image.warp_host import Places

Image = np.ndarray  # uint8 or float32, "h w" (grey) or "h w 3"
Labels = Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]  # multi-label: 0 and 1
Images = UInt8[Array, "n h w c"] | Float[Array, "n h w c"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["images", "photos"],
    meta_fields=["patch"],
)
@dataclass(frozen=True)
class Resident:
    """What the renderers take pixels from: on the devices, or on the host."""

    images: Any  # of a split: uint8 "images h w *rgb", on the host also `EncodedImages`
    photos: Any  # the background bank: uint8 "photos s s *rgb"
    patch: int = 0  # side of the part of the canvas that a scattered digit is drawn on, pixels


@runtime_checkable
class Plan(Protocol):
    """The rows of a NamedTuple, one per image."""

    @property
    def moves_itself(self) -> bool:
        """Whether `Composition.moved` puts an augmentation's matrix in it."""
        ...

    def __getitem__(self, field: int, /) -> Any:
        """The rows of a field."""
        ...

    def on_device(
        self,
        resident: Resident,
        augmentation: Augmentation | None,
        *,
        canvas: int,
    ) -> Images:
        """The images in a compiled step, on the canvas; with an augmentation not rounded yet."""
        ...

    def on_host(
        self,
        k: int,
        resident: Resident,
        changes: Augmentation | None,
        places: Places | None,
        *,
        canvas: int,
    ) -> Image:
        """The k-th image, by NumPy and OpenCV, with its augmentation and where that looks."""
        ...

    def own(self, resident: Resident) -> tuple["Plan", Resident]:
        """The plan over no more of the source than it shows."""
        ...


@runtime_checkable
class Composition(Protocol):
    """How images are composed: what `data.composition` names."""

    @property
    def canvas(self) -> int:
        """Side of the images before they are resized, pixels."""
        ...

    def draw(
        self,
        examples: Int32[np.ndarray, " n"],
        *,
        seed: int,
        stream: Stream,
        epoch: int,
        first: int,
    ) -> Any:
        """The plans of the images at positions first, first + 1, ... of an epoch.

        `examples` says which example of the dataset each shows (see `epoch_order`).
        """
        ...

    def labels(self, plan: Any, labels: Labels) -> Labels:
        """The labels of a plan's images; `labels` are those of its examples."""
        ...

    def class_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Labels in words, from 0; `names` are those of the dataset."""
        ...

    def moved(self, plan: Any, matrix: Num[np.ndarray, "n 3 3"]) -> Any:
        """The plan of images whose pixels lie at `matrix` times theirs in the plan's own.

        The plan itself, where renderers move the finished canvas.
        """
        ...

    def digit_boxes(self, plan: Any) -> Num[np.ndarray, "n 4"] | None:
        """Top, left, bottom and right of the one digit on the canvas, None where there is none."""
        ...


class OfExamples:
    """What compositions have in common whose images show the examples that they are asked for."""

    def labels(self, plan: Any, labels: Labels) -> Labels:
        """Those of the examples."""
        del plan
        return labels

    def class_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the dataset."""
        return names

    def moved(self, plan: Any, matrix: Num[np.ndarray, "n 3 3"]) -> Any:
        """The plan as it is: the finished canvas is moved."""
        del matrix
        return plan


class Composed(NamedTuple):
    """A composition that is set up for a split, and what it takes pixels from beside the source."""

    composition: Composition
    photos: UInt8[np.ndarray, "photos s s *rgb"]
    patch: int = 0
    whole_source: bool = False  # whether it takes other examples than those it is asked for


def row(fields: Any, k: int | Int32[np.ndarray, " n"]) -> Any:
    """The k-th of each field's rows, of a plan or an augmentation; of several k, those rows."""
    return type(fields)(*(None if field is None else field[k] for field in fields))


def only_own(resident: Resident, chosen: Int32[np.ndarray, " n"]) -> Resident:
    """The chosen images of the source alone, in the order of the plan."""
    images = np.stack([resident.images[int(k)] for k in chosen])
    return Resident(images, resident.photos, resident.patch)


def decoded(resident: Resident) -> Resident:
    """With the images as an array, to be put on the devices."""
    return Resident(np.asarray(resident.images), resident.photos, resident.patch)
