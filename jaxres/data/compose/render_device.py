"""The device renderer: plans to pixels inside the compiled step."""

import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt8

from jaxres.config import DataConfig
from jaxres.data.augment import LUMA, Augmentation
from jaxres.data.compose.composition import Images, Plan, Resident
from jaxres.image import warp
from jaxres.image.resize import resize


def render(
    plan: Plan, augmentation: Augmentation | None, resident: Resident, *, data: DataConfig
) -> UInt8[Array, "n side side 3"]:
    """Make the images of a plan whose fields are JAX arrays, within 1 level of the host's."""
    images = plan.on_device(resident, augmentation, canvas=data.canvas)
    if augmentation is not None:
        if not plan.moves_itself:
            images = _moved(images, augmentation)
        images = _coloured(_toned(images, augmentation), augmentation)
    if images.dtype != jnp.uint8:  # once, at the end
        images = jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)
    if augmentation is not None and augmentation.erase is not None:
        images = _erased(images, augmentation.erase)
    images = _finished(images, data)
    return jnp.broadcast_to(images, (*images.shape[:3], 3))


def _moved(images: Images, augmentation: Augmentation) -> Images:
    """Resampled where the augmentation says, mirrored beyond the border; before rounding."""
    matrix, jitter, noise = augmentation[:3]
    if matrix is None and jitter is None:
        return images
    n, side = images.shape[:2]
    places = warp.canvas_places(n, side, matrix, jitter, noise)
    return warp.sampled(images, jnp.arange(n), *places, border="mirror")


def _toned(images: Images, augmentation: Augmentation) -> Images:
    if augmentation.tone is None:
        return images
    gain, bias = (augmentation.tone[:, k, None, None, None] for k in (0, 1))
    return gain * images.astype(jnp.float32) + bias


def _coloured(images: Images, augmentation: Augmentation) -> Images:
    if augmentation.colour is None or images.shape[-1] != len(LUMA):
        return images
    grey = (images.astype(jnp.float32) @ LUMA)[..., None]
    return grey + augmentation.colour[:, None, None, None] * (images - grey)


def _erased(images: Images, erase: Int32[Array, "n 5"]) -> Images:
    pixel = jnp.arange(images.shape[1])
    row, column, height, width, grey = erase.T[:, :, None]
    rows = (pixel >= row) & (pixel < row + height)
    columns = (pixel >= column) & (pixel < column + width)
    inside = (rows[:, :, None] & columns[:, None, :])[..., None]
    return jnp.where(inside, grey[..., None, None].astype(jnp.uint8), images)


def _finished(images: UInt8[Array, "n h w c"], data: DataConfig) -> UInt8[Array, "n side side c"]:
    if data.resize is not None:
        images = resize(images, side=data.resize)
    if data.threshold is not None:
        images = jnp.where(images >= data.threshold_level, images, 0)
    if data.center:
        images = _centred(images)
    if data.pad is not None:
        margin = data.pad - images.shape[1]
        sides = (margin // 2, margin - margin // 2)
        images = jnp.pad(images, ((0, 0), sides, sides, (0, 0)))
    return images


def _centred(images: UInt8[Array, "n h w c"]) -> UInt8[Array, "n h w c"]:
    """The box of what is not black moved to the middle; an odd pixel is left after it."""
    for axis in (1, 2):
        size = images.shape[axis]
        marked = (images > 0).any(axis=(3 - axis, 3))
        first, after = marked.argmax(1), size - marked[:, ::-1].argmax(1)
        source = jnp.arange(size) - ((size - first - after) // 2)[:, None]
        inside = (source >= 0) & (source < size) & marked.any(1)[:, None]
        shape = [len(images), 1, 1, 1]
        shape[axis] = size
        taken = jnp.take_along_axis(images, jnp.clip(source, 0, size - 1).reshape(shape), axis)
        images = jnp.where(inside.reshape(shape), taken, 0)
    return images
