"""Bicubic resizing as a product with two small matrices."""

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, UInt8

KEYS_A = -0.75  # OpenCV's choice; Keys' own and PyTorch's antialiased one is -0.5.


def cubic_matrix(
    side: Int32[Array, " n"], corner: Int32[Array, " n"], *, size_in: int, size_out: int
) -> Float[Array, "n size_out size_in"]:
    """Rows that resize `size_in` pixels to `side` and lay them at `corner` of `size_out` pixels.

    Row i holds the weights of output pixel i: Keys' cubic kernel (Keys 1981, eq. 4, with
    a = -0.75), half-pixel centres, clamped borders, as OpenCV's INTER_CUBIC. It does not
    antialias when side < size_in, and neither does OpenCV. Rows outside
    [corner, corner + side) extrapolate; the caller masks them (`box_mask`).
    """
    step = size_in / side.astype(jnp.float32)
    pixel = jnp.arange(size_out, dtype=jnp.float32)
    centre = pixel[None, :] - corner[:, None].astype(jnp.float32) + 0.5
    position = centre * step[:, None] - 0.5
    left = jnp.floor(position)
    x = position - left
    a = KEYS_A
    before = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    first = ((a + 2) * x - (a + 3)) * x * x + 1
    second = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    weights = (before, first, second, 1 - before - first - second)
    columns = jnp.arange(size_in)
    matrix = jnp.zeros((side.shape[0], size_out, size_in), jnp.float32)
    for tap, weight in enumerate(weights):
        source = jnp.clip(left.astype(jnp.int32) + tap - 1, 0, size_in - 1)
        matrix += jnp.where(source[:, :, None] == columns, weight[:, :, None], 0.0)
    return matrix


def box_mask(
    side: Int32[Array, " n"], corner: Int32[Array, " n"], *, size: int
) -> Bool[Array, "n size"]:
    """True for the pixels in [corner, corner + side)."""
    pixel = jnp.arange(size)
    return (pixel >= corner[:, None]) & (pixel < (corner + side)[:, None])


def resize_onto(
    images: UInt8[Array, "n h w"],
    side: Int32[Array, " n"],
    corner: Int32[Array, "n 2"],
    *,
    canvas: int,
    exact: bool = False,
) -> UInt8[Array, "n canvas canvas"] | Float[Array, "n canvas canvas"]:
    """Resize each grey image to side x side and lay it at `corner` (row, column) of a canvas.

    Values are clipped to 0..255 and, unless `exact`, rounded. Pixels outside the square are
    undefined.
    """
    chex.assert_rank([images, side, corner], [3, 1, 2])
    chex.assert_equal_shape_prefix([images, side, corner], 1)
    height, width = images.shape[1:]
    rows = cubic_matrix(side, corner[:, 0], size_in=height, size_out=canvas)
    columns = cubic_matrix(side, corner[:, 1], size_in=width, size_out=canvas)
    # Grey levels need 8 bits and more: TPUs and TF32 would otherwise multiply with fewer.
    resized = jnp.einsum(
        "nik,nkl,njl->nij",
        rows,
        images.astype(jnp.float32),
        columns,
        precision=jax.lax.Precision.HIGHEST,
    )
    return _clipped(resized, exact)


def resize(
    images: UInt8[Array, "n h w *rgb"], *, side: int, exact: bool = False
) -> UInt8[Array, "n {side} {side} *rgb"] | Float[Array, "n {side} {side} *rgb"]:
    """Resize each grey or RGB image to side x side; of that size already it stays as it is.

    Values are clipped to 0..255 and, unless `exact`, rounded.
    """
    chex.assert_rank(images, {3, 4})
    height, width = images.shape[1:3]
    if (height, width) == (side, side):
        return images
    whole, at_zero = jnp.full(1, side), jnp.zeros(1, jnp.int32)
    rows = cubic_matrix(whole, at_zero, size_in=height, size_out=side)[0]
    columns = cubic_matrix(whole, at_zero, size_in=width, size_out=side)[0]
    resized = jnp.einsum(
        "ik,nkl...,jl->nij...",
        rows,
        images.astype(jnp.float32),
        columns,
        precision=jax.lax.Precision.HIGHEST,
    )
    return _clipped(resized, exact)


def _clipped(values: Float[Array, "..."], exact: bool) -> Array:
    clipped = jnp.clip(values, 0, 255)
    return clipped if exact else jnp.round(clipped).astype(jnp.uint8)
