"""The device renderer: plans to pixels inside the compiled step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxres.data.plan import PlainPlan, Plan, ScaleBlendPlan
from jaxres.ops.blend import blend
from jaxres.ops.resize import box_mask, resize, resize_onto


class Resident(NamedTuple):
    """What stays on every device: the pictures of a split, grey or RGB, and its background bank."""

    images: UInt8[Any, "images h w *rgb"]
    photos: UInt8[Any, "photos s s 3"]


def render(plan: Plan, resident: Resident, *, canvas: int) -> UInt8[Array, "n canvas canvas 3"]:
    """Make the pictures of a plan whose fields are JAX arrays, within 1 level of the host's."""
    match plan:
        case ScaleBlendPlan():
            return _scale_blend(plan, resident, canvas)
        case PlainPlan():
            return _plain(plan, resident, canvas)


def _scale_blend(
    plan: ScaleBlendPlan, resident: Resident, canvas: int
) -> UInt8[Array, "n canvas canvas 3"]:
    def crop(photo: Array, corner: Array) -> Array:
        start = (photo, corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(resident.photos, start, (1, canvas, canvas, 3))[0]

    background = jax.vmap(crop)(plan.photo, plan.crop)
    digit = resize_onto(
        jnp.take(resident.images, plan.digit, axis=0), plan.side, plan.corner, canvas=canvas
    )
    rows = box_mask(plan.side, plan.corner[:, 0], size=canvas)
    columns = box_mask(plan.side, plan.corner[:, 1], size=canvas)
    inside = rows[:, :, None] & columns[:, None, :]
    return jnp.where(inside[..., None], blend(background, digit, plan.opacity), background)


def _plain(plan: PlainPlan, resident: Resident, canvas: int) -> UInt8[Array, "n canvas canvas 3"]:
    pictures = resize(jnp.take(resident.images, plan.image, axis=0), side=canvas)
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    return jnp.broadcast_to(pictures, (len(plan.image), canvas, canvas, 3))
