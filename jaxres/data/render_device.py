"""The device renderer: plans to pixels inside the compiled step."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, UInt8

from jaxres.config import DataConfig
from jaxres.data.augment import Augmentation
from jaxres.data.plan import PlainPlan, Plan, Resident, ScaleBlendPlan, ScatterPlan
from jaxres.ops import warp
from jaxres.ops.blend import blend
from jaxres.ops.resize import box_mask, resize, resize_onto

Pictures = UInt8[Array, "n h w c"] | Float[Array, "n h w c"]


def render(
    plan: Plan, augmentation: Augmentation | None, resident: Resident, *, data: DataConfig
) -> UInt8[Array, "n side side 3"]:
    """Make the pictures of a plan whose fields are JAX arrays, within 1 level of the host's."""
    exact = augmentation is not None  # rounded once, at the end
    match plan:
        case ScaleBlendPlan():
            pictures = _scale_blend(plan, resident, data.canvas, exact=exact)
        case PlainPlan():
            images = jnp.take(resident.images, plan.image, axis=0)
            pictures = resize(images, side=data.canvas, exact=exact)
            pictures = pictures[..., None] if pictures.ndim == 3 else pictures
        case ScatterPlan():
            pictures = _scatter(plan, augmentation, resident, data.canvas)
    if augmentation is not None:
        if not isinstance(plan, ScatterPlan):  # whose matrices hold the augmentation's
            pictures = _moved(pictures, augmentation)
        pictures = _toned(pictures, augmentation)
    if pictures.dtype != jnp.uint8:
        pictures = jnp.clip(jnp.round(pictures), 0, 255).astype(jnp.uint8)
    if augmentation is not None and augmentation.erase is not None:
        pictures = _erased(pictures, augmentation.erase)
    pictures = _finished(pictures, data)
    return jnp.broadcast_to(pictures, (*pictures.shape[:3], 3))


def _scale_blend(plan: ScaleBlendPlan, resident: Resident, canvas: int, *, exact: bool) -> Pictures:
    def crop(photo: Array, corner: Array) -> Array:
        start = (photo, corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(resident.photos, start, (1, canvas, canvas, 3))[0]

    background = jax.vmap(crop)(plan.photo, plan.crop)
    digits = jnp.take(resident.images, plan.digit, axis=0)
    digit = resize_onto(digits, plan.side, plan.corner, canvas=canvas, exact=exact)
    rows = box_mask(plan.side, plan.corner[:, 0], size=canvas)
    columns = box_mask(plan.side, plan.corner[:, 1], size=canvas)
    inside = rows[:, :, None] & columns[:, None, :]
    mixed = blend(background, digit, plan.opacity, exact=exact)
    return jnp.where(inside[..., None], mixed, background)


def _scatter(
    plan: ScatterPlan, augmentation: Augmentation | None, resident: Resident, canvas: int
) -> Pictures:
    """White digits over their background, before rounding."""
    matrix, jitter, noise = (None,) * 3 if augmentation is None else augmentation[:3]
    n, d = plan.digit.shape
    if matrix is None and jitter is None:
        texture = jax.vmap(partial(_square, resident.photos, canvas))(plan.texture, plan.to_texture)
    else:
        everywhere = jnp.broadcast_to(jnp.arange(canvas), (n, canvas))
        places = warp.pixel_places(everywhere, everywhere, jitter, noise)
        places = warp.transformed(plan.to_texture, *places)
        texture = warp.sampled(resident.photos, plan.texture, *places, border="mirror")
    gain, bias = (plan.tone[:, k, None, None] for k in (0, 1))
    background = jnp.clip(gain * texture + bias, 0, 255)

    def each(field: Array) -> Array:
        return field.reshape(n * d, *field.shape[2:])

    if jitter is not None and noise is not None:
        jitter, noise = jnp.repeat(jitter, d), jnp.repeat(noise, d)
    corner = each(plan.corner)
    rows, columns = (corner[:, axis, None] + jnp.arange(len(resident.patch)) for axis in (0, 1))
    places = warp.pixel_places(rows, columns, jitter, noise)
    places = warp.transformed(each(plan.to_digit), *places)
    level = warp.sampled(resident.images, each(plan.digit), *places, border="black")
    gain, floor = (each(plan.ink)[:, k, None, None] for k in (0, 1))
    opacity = jnp.clip(gain / 255 * level - floor, 0, 1) * each(plan.present)[:, None, None]
    opacity = opacity.reshape(n, d, *opacity.shape[1:])
    darkness = 255 - background
    for j in range(d):  # one by one: all canvases together would need d times the memory
        darkness *= 1 - warp.placed(opacity[:, j], plan.corner[:, j], side=canvas)
    return (255 - darkness)[..., None]


def _square(
    textures: UInt8[Array, "m s s"],
    canvas: int,
    chosen: Int32[Array, ""],
    matrix: Float[Array, "3 3"],
) -> UInt8[Array, "canvas canvas"]:
    """A crop of a texture by a matrix that only shifts, mirrors and turns by quarters."""
    ends = jnp.stack([matrix[:2, 2], matrix[:2, 2] + matrix[:2, :2].sum(1) * (canvas - 1)])
    column, row = ends.min(0).astype(jnp.int32)
    square = jax.lax.dynamic_slice(textures, (chosen, row, column), (1, canvas, canvas))[0]
    square = jnp.where(matrix[:2, :2].sum(1)[1] < 0, square[::-1], square)
    square = jnp.where(matrix[:2, :2].sum(1)[0] < 0, square[:, ::-1], square)
    return jnp.where(matrix[0, 0] == 0, square.T, square)


def _moved(pictures: Pictures, augmentation: Augmentation) -> Pictures:
    """Resampled where the augmentation says, mirrored beyond the border; before rounding."""
    matrix, jitter, noise = augmentation[:3]
    if matrix is None and jitter is None:
        return pictures
    n, side = pictures.shape[:2]
    everywhere = jnp.broadcast_to(jnp.arange(side), (n, side))
    places = warp.pixel_places(everywhere, everywhere, jitter, noise)
    if matrix is not None:
        places = warp.transformed(matrix, *places)
    return warp.sampled(pictures, jnp.arange(n), *places, border="mirror")


def _toned(pictures: Pictures, augmentation: Augmentation) -> Pictures:
    if augmentation.tone is None:
        return pictures
    gain, bias = (augmentation.tone[:, k, None, None, None] for k in (0, 1))
    return gain * pictures.astype(jnp.float32) + bias


def _erased(pictures: Pictures, erase: Int32[Array, "n 5"]) -> Pictures:
    pixel = jnp.arange(pictures.shape[1])
    row, column, height, width, grey = erase.T[:, :, None]
    rows = (pixel >= row) & (pixel < row + height)
    columns = (pixel >= column) & (pixel < column + width)
    inside = (rows[:, :, None] & columns[:, None, :])[..., None]
    return jnp.where(inside, grey[..., None, None].astype(jnp.uint8), pictures)


def _finished(pictures: UInt8[Array, "n h w c"], data: DataConfig) -> UInt8[Array, "n side side c"]:
    if data.resize is not None:
        pictures = resize(pictures, side=data.resize)
    if data.threshold is not None:
        pictures = jnp.where(pictures >= data.threshold_level, pictures, 0)
    if data.center:
        pictures = _centred(pictures)
    if data.pad is not None:
        margin = data.pad - pictures.shape[1]
        sides = (margin // 2, margin - margin // 2)
        pictures = jnp.pad(pictures, ((0, 0), sides, sides, (0, 0)))
    return pictures


def _centred(pictures: UInt8[Array, "n h w c"]) -> UInt8[Array, "n h w c"]:
    """The box of what is not black moved to the middle; an odd pixel is left after it."""
    for axis in (1, 2):
        size = pictures.shape[axis]
        marked = (pictures > 0).any(axis=(3 - axis, 3))
        first, after = marked.argmax(1), size - marked[:, ::-1].argmax(1)
        source = jnp.arange(size) - ((size - first - after) // 2)[:, None]
        inside = (source >= 0) & (source < size) & marked.any(1)[:, None]
        shape = [len(pictures), 1, 1, 1]
        shape[axis] = size
        taken = jnp.take_along_axis(pictures, jnp.clip(source, 0, size - 1).reshape(shape), axis)
        pictures = jnp.where(inside.reshape(shape), taken, 0)
    return pictures
