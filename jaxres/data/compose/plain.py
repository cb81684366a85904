"""The composition `plain`: a dataset's own images, resized to the canvas."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from jaxres.data.augment import Augmentation
from jaxres.data.compose.composition import Image, Images, OfExamples, Resident, only_own
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
    ) -> Images:
        """See `Plan.on_device`."""
        exact = augmentation is not None
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
    ) -> Image:
        """See `Plan.on_host`."""
        del places
        exact = changes is not None
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
class Plain(OfExamples):
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

    def digit_boxes(self, plan: PlainPlan) -> None:
        """None: where an image's subject lies is not known."""
        del plan
