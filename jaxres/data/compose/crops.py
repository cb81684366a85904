"""Crops of textures, turned by quarters and mirrored."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32, Num, UInt8, UInt64

from jaxres.data.rng import below, swapped
from jaxres.image import warp


def places(
    words: UInt64[np.ndarray, "n words"], side: int, canvas: int
) -> Float64[np.ndarray, "n 3 3"]:
    """Matrices from the canvas to a square of that side: a crop in one of its eight symmetries."""
    margin = side - canvas + 1
    start = np.stack([below(swapped(words[:, 2]), margin), below(words[:, 2], margin)], -1)
    kind = below(words[:, 3], 8)
    mirror = np.stack([kind & 1, kind >> 1 & 1], -1)
    matrix = np.zeros((len(words), 3, 3))
    matrix[:, 2, 2] = 1
    matrix[:, :2, 2] = start + mirror * (canvas - 1)
    sign = 1 - 2 * mirror
    turned = kind >> 2 == 1
    for axis in (0, 1):
        matrix[:, axis, axis] = np.where(turned, 0, sign[:, axis])
        matrix[:, axis, 1 - axis] = np.where(turned, sign[:, axis], 0)
    return matrix


def crop(
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


def crop_on_host(
    texture: UInt8[np.ndarray, "s s"], matrix: Float32[np.ndarray, "3 3"], canvas: int
) -> UInt8[np.ndarray, "{canvas} {canvas}"]:
    """A crop of a texture by a matrix that only shifts, mirrors and turns by quarters."""
    right, down = (int(sign) for sign in matrix[:2, :2].sum(1))
    ends = matrix[:2, 2] + np.array([[0, 0], [right, down]]) * (canvas - 1)
    column, row = ends.min(0).astype(int)
    square = texture[row : row + canvas, column : column + canvas][::down, ::right]
    return square.T if matrix[0, 0] == 0 else square


def warped(
    textures: UInt8[Array, "m s s"],
    plan: Any,
    canvas: int,
    matrix: Array | None,
    jitter: Array | None,
    noise: Array | None,
) -> Num[Array, "n canvas canvas"]:
    """The crops of a `ScatterPlan`, resampled where an augmentation moves their pixels."""
    if matrix is None and jitter is None:
        return jax.vmap(partial(crop, textures, canvas))(plan.texture, plan.to_texture)
    looked_for = warp.canvas_places(len(plan.texture), canvas, plan.to_texture, jitter, noise)
    return warp.sampled(textures, plan.texture, *looked_for, border="mirror")
