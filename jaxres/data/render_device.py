"""The device renderer: plans to pixels inside the compiled step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from jaxres.data.plan import Plan
from jaxres.ops.blend import blend
from jaxres.ops.resize import box_mask, resize_onto


class Resident(NamedTuple):
    """What stays on every device: the digits of a split and its background bank."""

    digits: UInt8[Any, "digits h w"]
    photos: UInt8[Any, "photos s s 3"]


def render(plan: Plan, resident: Resident, *, canvas: int) -> UInt8[Array, "n canvas canvas 3"]:
    """Make the pictures of a plan whose fields are JAX arrays, within 1 level of the host's."""

    def crop(photo: Array, corner: Array) -> Array:
        start = (photo, corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(resident.photos, start, (1, canvas, canvas, 3))[0]

    background = jax.vmap(crop)(plan.photo, plan.crop)
    digit = resize_onto(
        jnp.take(resident.digits, plan.digit, axis=0), plan.side, plan.corner, canvas=canvas
    )
    rows = box_mask(plan.side, plan.corner[:, 0], size=canvas)
    columns = box_mask(plan.side, plan.corner[:, 1], size=canvas)
    inside = rows[:, :, None] & columns[:, None, :]
    return jnp.where(inside[..., None], blend(background, digit, plan.opacity), background)
