"""Images resampled at the places that a homography gives, bilinearly."""

from typing import Literal

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, UInt8, UInt32

from jaxres.image.hashing import pixel_noise

Border = Literal["mirror", "black"]


def pixel_places(
    rows: Int32[Array, "n h"],
    columns: Int32[Array, "n w"],
    jitter: Float32[Array, " n"] | None,
    noise: UInt32[Array, " n"] | None,
) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"]]:
    """Row and column of the pixels in a grid, each moved by up to `jitter` pixels both ways.

    The noise is a hash of the seed and the pixel's own row and column, whatever the grid.
    """
    shape = (rows.shape[0], rows.shape[1], columns.shape[1])
    row = jnp.broadcast_to(rows[:, :, None], shape)
    column = jnp.broadcast_to(columns[:, None, :], shape)
    places = (row.astype(jnp.float32), column.astype(jnp.float32))
    if jitter is None or noise is None:
        return places
    seed, most = noise[:, None, None], jitter[:, None, None]
    pixel = (row.astype(jnp.uint32), column.astype(jnp.uint32))
    down, right = (most * pixel_noise(*pixel, seed, axis=axis) for axis in (0, 1))
    return places[0] + down, places[1] + right


def canvas_places(
    n: int,
    side: int,
    matrix: Float32[Array, "n 3 3"] | None,
    jitter: Float32[Array, " n"] | None,
    noise: UInt32[Array, " n"] | None,
) -> tuple[Float[Array, "n side side"], Float[Array, "n side side"]]:
    """Row and column of all pixels of n canvases, jittered and then transformed."""
    everywhere = jnp.broadcast_to(jnp.arange(side), (n, side))
    places = pixel_places(everywhere, everywhere, jitter, noise)
    return places if matrix is None else transformed(matrix, *places)


def transformed(
    matrix: Float32[Array, "n 3 3"], row: Float[Array, "n h w"], column: Float[Array, "n h w"]
) -> tuple[Float[Array, "n h w"], Float[Array, "n h w"]]:
    """Row and column of `matrix` times (column, row, 1)."""
    m = matrix[:, :, :, None, None]
    x, y, w = (m[:, k, 0] * column + m[:, k, 1] * row + m[:, k, 2] for k in range(3))
    return y / w, x / w


def sampled(
    images: UInt8[Array, "m h w *rgb"] | Float[Array, "m h w *rgb"],
    chosen: Int32[Array, " n"],
    row: Float[Array, "n rows columns"],
    column: Float[Array, "n rows columns"],
    *,
    border: Border,
) -> Float[Array, "n rows columns *rgb"]:
    """Grey levels of the chosen images at these places.

    Beyond its border an image is black, or mirrored about its outermost pixels as by OpenCV's
    BORDER_REFLECT_101.
    """
    chex.assert_rank(images, {3, 4})
    chex.assert_equal_shape([row, column])
    chex.assert_equal_shape_prefix([row, chosen], 1)
    height, width = images.shape[1:3]
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = row - top, column - left
    chosen = chosen[:, None, None]

    def tap(row_tap: int, column_tap: int) -> Array:
        i, j = (top.astype(jnp.int32) + row_tap, left.astype(jnp.int32) + column_tap)
        weight = (down if row_tap else 1 - down) * (right if column_tap else 1 - right)
        if border == "mirror":
            i, j = _mirrored(i, height), _mirrored(j, width)
        else:
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            weight = jnp.where(inside, weight, 0.0)
            i, j = jnp.clip(i, 0, height - 1), jnp.clip(j, 0, width - 1)
        # Three small indices: one of all pixels together would pass int32 in a large bank.
        values = (
            jnp.asarray(images).at[chosen, i, j].get(mode="promise_in_bounds").astype(jnp.float32)
        )
        return values * weight.reshape(*weight.shape, *[1] * (values.ndim - weight.ndim))

    return tap(0, 0) + tap(0, 1) + tap(1, 0) + tap(1, 1)


def placed(
    patches: Float[Array, "n p p"], corner: Int32[Array, "n 2"], *, side: int
) -> Float[Array, "n side side"]:
    """Each patch laid on a black square with its first pixel at `corner` (row, column).

    As two products with matrices of zeros and ones: a scatter is slower on every device.
    """
    offsets = jnp.arange(patches.shape[1])
    pixel = jnp.arange(side)
    rows, columns = (
        (pixel[None, :, None] == corner[:, None, None, axis] + offsets).astype(jnp.float32)
        for axis in (0, 1)
    )
    return jnp.einsum(
        "nip,npq,njq->nij", rows, patches, columns, precision=jax.lax.Precision.HIGHEST
    )


def _mirrored(index: Int32[Array, "*n"], size: int) -> Int32[Array, "*n"]:
    period = max(1, 2 * (size - 1))
    index = jnp.abs(index) % period
    return jnp.where(index >= size, period - index, index)
