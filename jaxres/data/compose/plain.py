"""The composition `plain`: a dataset's own images, resized to the canvas."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, Num

from jaxres.data.augment import Augmentation
from jaxres.data.compose.composition import Image, Images, Resident, only_own
from jaxres.data.rng import Stream
from jaxres.image.resize import resize
from jaxres.image.warp_host import Places


class PlainPlan(NamedTuple):
    """What `Plain` draws."""

    image: Int32[Any, " n"]  # which image of the source

    moves_itself = False

    def on_device(
        self,
        resident: Resident,
        augmentation: Augmentation | None,
        *,
        canvas: int,
        exact: bool,
    ) -> Images:
        """See `Plan.on_device`."""
        del augmentation
        chosen = jnp.take(resident.images, self.image, axis=0)
        images = resize(chosen, side=canvas, exact=exact)
        return images[..., None] if images.ndim == 3 else images

    def on_host(
        self,
        k: int,
        resident: Resident,
        changes: Augmentation | None,
        places: Places | None,
        *,
        canvas: int,
        exact: bool,
    ) -> Image:
        """See `Plan.on_host`."""
        del changes, places
        stored = resident.images[int(self.image[k])]
        image = stored.astype(np.float32) if exact else stored
        if image.shape[:2] == (canvas, canvas):
            return image
        resized = cv2.resize(image, (canvas, canvas), interpolation=cv2.INTER_CUBIC)
        return np.clip(resized, 0, 255) if exact else resized

    def own(self, resident: Resident) -> tuple["PlainPlan", Resident]:
        """See `Plan.own`."""
        return PlainPlan(np.arange(len(self.image), dtype=np.int32)), only_own(resident, self.image)


@dataclass(frozen=True)
class Plain:
    """The composition of a dataset's own images, resized to the canvas."""

    canvas: int

    def draw(
        self,
        examples: Int32[np.ndarray, " n"],
        *,
        seed: int,
        stream: Stream,
        epoch: int,
        first: int,
    ) -> PlainPlan:
        """The plans of the examples; nothing is left to chance."""
        del seed, stream, epoch, first
        return PlainPlan(examples)

    def labels(self, plan: PlainPlan, labels: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
        """Those of the examples."""
        del plan
        return labels

    def class_names(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the dataset."""
        return names

    def moved(self, plan: PlainPlan, matrix: Num[np.ndarray, "n 3 3"]) -> PlainPlan:
        """The same plan: the finished canvas is moved."""
        del matrix
        return plan

    def digit_boxes(self, plan: PlainPlan) -> None:
        """None: where an image's subject lies is not known."""
        del plan
