"""Laying one picture over another."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def blend(
    photo: UInt8[Array, "n h w 3"], digit: UInt8[Array, "n h w"], opacity: Float[Array, " n"]
) -> UInt8[Array, "n h w 3"]:
    """Lay a grey digit over a photograph by normal blending.

    round((1 - opacity) * photo + opacity * digit), half to even as OpenCV does. Values stay in
    0..255. Pixels outside the digit's square are for the caller to mask.
    """
    weight = opacity[:, None, None, None]
    top = digit[..., None].astype(jnp.float32)
    mixed = (1 - weight) * photo.astype(jnp.float32) + weight * top
    return jnp.round(mixed).astype(jnp.uint8)
