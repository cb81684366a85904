"""Laying one image over another."""

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

Levels = UInt8[Array, "n h w"] | Float[Array, "n h w"]


def blend(
    photo: UInt8[Array, "n h w 3"],
    digit: Levels,
    opacity: Float[Array, " n"],
    *,
    exact: bool = False,
) -> UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"]:
    """Lay a grey digit over a photograph by alpha blending.

    (1 - opacity) * photo + opacity * digit, rounded half to even as OpenCV does, unless `exact`.
    Values stay in 0..255. Pixels outside the digit's square are for the caller to mask.
    """
    chex.assert_rank([photo, digit, opacity], [4, 3, 1])
    chex.assert_equal_shape_prefix([photo, digit], 3)
    weight = opacity[:, None, None, None]
    top = digit[..., None].astype(jnp.float32)
    mixed = (1 - weight) * photo.astype(jnp.float32) + weight * top
    return mixed if exact else jnp.round(mixed).astype(jnp.uint8)
