"""How much of a map lies where the digit is."""

import numpy as np
from jaxtyping import Float32, Int32, Num

from jaxres.config import DataConfig
from jaxres.data.composed import Batch, ComposedDataset


def digit_boxes(dataset: ComposedDataset, batch: Batch) -> Int32[np.ndarray, "n 4"] | None:
    """Where the one digit of each finished image lies: top, left, bottom and right, in pixels.

    Bottom and right are the first pixels outside. Of `scale_blend` it is the digit's square, of a
    single scattered digit what its ink reaches. None where no plan says it: several digits or
    plain images, augmented ones, and those that `data.center` moves.
    """
    if "augmentation" in batch or dataset.data.center:
        return None
    boxes = dataset.compose.digit_boxes(batch["plan"])
    return None if boxes is None else _finished(boxes, dataset.data)


def shares_in_boxes(
    maps: Float32[np.ndarray, "n h w"], boxes: Int32[np.ndarray, "n 4"]
) -> Float32[np.ndarray, " n"]:
    """The share of each map's mass, what is above zero, inside its box; 0 of a map without any."""
    rows, columns = (np.arange(size) for size in maps.shape[1:])
    top, left, bottom, right = boxes.T[:, :, None]
    inside = ((rows >= top) & (rows < bottom))[:, :, None]
    inside = inside & ((columns >= left) & (columns < right))[:, None, :]
    mass = np.maximum(maps, 0).astype(np.float64)
    total = mass.sum((1, 2))
    share = np.where(inside, mass, 0).sum((1, 2)) / np.where(total > 0, total, 1)
    return share.astype(np.float32)


def _finished(boxes: Num[np.ndarray, "n 4"], data: DataConfig) -> Int32[np.ndarray, "n 4"]:
    """As the canvas is resized, then padded."""
    drawn = data.resize or data.canvas
    margin = (data.image_size - drawn) // 2
    return np.rint(boxes * (drawn / data.canvas)).astype(np.int32) + margin
