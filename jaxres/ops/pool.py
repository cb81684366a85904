"""Pooling of NHWC images: maximum and average over windows, over channels, over the image."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer, UInt16

from jaxres.ops import target
from jaxres.ops.geometry import Padding, accumulation_dtype, pads


def max_pool(
    images: Float[Array, "n h w c"],
    *,
    window: int,
    stride: int,
    padding: int | Padding | Literal["SAME"] = 0,
) -> Float[Array, "n oh ow c"]:
    """The largest value of each window; padding, given as to `conv2d`, never wins.

    Where values tie, the gradient goes to the first of them, row by row. The gradient is not XLA's
    but on TPU: on CPU 3x3 windows of stride 2 take 3.7 ms in place of 69 (64 images of 32x32x64);
    on a GPU XLA scatters with atomic additions, in an order that differs from run to run.

    Raises:
        ValueError: padding of more than half a window, or a window larger than the padded image.
    """
    around = window_pads(images, window, stride, padding)
    if 2 * max(*around[0], *around[1]) > window:
        raise ValueError(f"padding is {padding}; allowed: at most half the window ({window})")
    if target.backend() == "tpu":
        return xla_max_pool(images, window, stride, around)
    return _max_pool(images, images.shape[1:3], window, stride, around)


def xla_max_pool(
    images: Float[Array, "n h w c"], window: int, stride: int, padding: Padding
) -> Float[Array, "n oh ow c"]:
    """The largest value of each window, the gradient by XLA's own rule."""
    return _reduce_windows(images, -jnp.inf, lax.max, window, stride, padding)


def average_pool(
    images: Float[Array, "n h w c"], *, window: int, stride: int, padding: int = 0
) -> Float[Array, "n oh ow c"]:
    """The mean of each window, padding counted as zeros (torch's default).

    Raises:
        ValueError: a window larger than the padded image.
    """
    around = window_pads(images, window, stride, padding)
    wide = images.astype(accumulation_dtype(images))
    total = _reduce_windows(wide, 0.0, lax.add, window, stride, around)
    return (total / window**2).astype(images.dtype)


def channel_pool(
    images: Float[Array, "n h w c"], *, window: int, kind: Literal["max", "mean"] = "max"
) -> Float[Array, "n h w groups"]:
    """Depthwise pooling: the maximum or mean of each run of `window` neighbouring channels.

    Raises:
        ValueError: `window` does not divide the number of channels.
    """
    channels = images.shape[-1]
    if channels % window:
        raise ValueError(f"window is {window}; allowed: a divisor of the {channels} channels")
    runs = images.reshape(*images.shape[:-1], channels // window, window)
    return (
        runs.max(-1)
        if kind == "max"
        else runs.mean(-1, dtype=accumulation_dtype(images)).astype(images.dtype)
    )


def adaptive_average_pool(
    images: Float[Array, "n h w c"], size: int
) -> Float[Array, "n size size c"]:
    """The mean of each of size x size bins, as torch's AdaptiveAvgPool2d takes it.

    Bin i of a side holds its pixels from floor(i * side / size) up to ceil((i + 1) * side / size):
    where the side is not a multiple of the size, or less, neighbouring bins share pixels.
    """
    if images.shape[1:3] == (size, size):
        return images
    wide = images.astype(accumulation_dtype(images))
    return _bin_means(_bin_means(wide, 1, size), 2, size).astype(images.dtype)


def global_average_pool(images: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """The mean over each image, summed in float32 at least."""
    return images.mean((1, 2), dtype=accumulation_dtype(images)).astype(images.dtype)


def global_max_pool(images: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """The maximum over each image."""
    return images.max((1, 2))


def window_pads(
    images: Array, window: int, stride: int, padding: int | Padding | Literal["SAME"]
) -> Padding:
    """Pixels around images that are pooled, as `geometry.pads` gives them.

    Raises:
        ValueError: a window larger than the padded image.
    """
    chex.assert_rank(images, 4)
    height, width = images.shape[1:3]
    around = pads(padding, size=(height, width), window=(window, window), stride=(stride, stride))
    if min(height + sum(around[0]), width + sum(around[1])) < window:
        raise ValueError(
            f"window is {window}; allowed: at most the padded image "
            f"({height}x{width}, padding {padding})"
        )
    return around


def _bin_means(images: Array, axis: int, size: int) -> Array:
    """Means over one axis; 64x2x2x512 into 7x7 with the gradient: 3 ms, 6.7 by matrix products."""
    side = images.shape[axis]
    bins = [(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]
    means = [lax.slice_in_dim(images, *edges, axis=axis).mean(axis) for edges in bins]
    return jnp.stack(means, axis)


def _reduce_windows(
    images: Array, start: float, combine: Callable, window: int, stride: int, padding: Padding
) -> Array:
    return lax.reduce_window(
        images,
        np.asarray(start, images.dtype),  # a traced value would hide the maximum from autodiff
        combine,
        (1, window, window, 1),
        (1, stride, stride, 1),
        ((0, 0), *padding, (0, 0)),
    )


def _taps(images: Array, window: int, stride: int, padding: Padding) -> list[Array]:
    """For each place of the window, row by row, what it reads: arrays of the output's size."""
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    last_y, last_x = ((side - window) // stride * stride + 1 for side in padded.shape[1:3])
    return [
        padded[:, y : y + last_y : stride, x : x + last_x : stride]
        for y in range(window)
        for x in range(window)
    ]


def largest_of(
    images: Float[Array, "n h w c"], window: int, stride: int, padding: Padding
) -> Float[Array, "n oh ow c"]:
    """The largest value of each window; what is around images never wins."""
    return reduce(jnp.maximum, _taps(images, window, stride, padding))


def first_of(
    images: Float[Array, "n h w c"],
    largest: Float[Array, "n oh ow c"],
    window: int,
    stride: int,
    padding: Padding,
) -> UInt16[Array, "n oh ow c"]:
    """The place in each window, counted row by row, of its first largest value."""
    first = jnp.full(largest.shape, window**2, jnp.uint16)
    for place, tap in reversed(list(enumerate(_taps(images, window, stride, padding)))):
        first = jnp.where(tap == largest, jnp.uint16(place), first)
    return first


def largest_and_first(
    images: Float[Array, "n h w c"], window: int, stride: int, padding: Padding
) -> tuple[Float[Array, "n oh ow c"], Integer[Array, "n oh ow c"]]:
    """The largest value of each window and its place, in one pass over the images."""
    taps = _taps(images, window, stride, padding)
    dtype = jnp.uint8 if len(taps) <= 256 else jnp.uint16
    largest, first = taps[0], jnp.zeros(taps[0].shape, dtype)
    for place, tap in enumerate(taps[1:], 1):
        first = jnp.where(tap > largest, jnp.array(place, dtype), first)
        largest = jnp.maximum(largest, tap)
    return largest, first


def to_first(
    gradient: Float[Array, "n oh ow c"],
    first: Integer[Array, "n oh ow c"],
    size: tuple[int, int],
    window: int,
    stride: int,
    padding: Padding,
) -> Float[Array, "n h w c"]:
    """Each window's gradient at its place `first`: images of `size`, in float32 at least.

    Each pixel gathers from the windows that chose it. Pixels whose coordinates agree modulo the
    stride are reached by the same places of the window, so each such phase is a sum of a few dense
    arrays and the phases are interleaved at the end.
    """
    # bfloat16 sums of masked arrays are slow on CPU (35 ms against 4) and lose bits.
    wide = gradient.astype(accumulation_dtype(gradient))
    (n, *_, channels), (height, width) = gradient.shape, size
    (top, bottom), (left, right) = padding
    rows, columns = -(-(height + top + bottom) // stride), -(-(width + left + right) // stride)

    def phase(offset_y: int, offset_x: int) -> Array:
        total = jnp.zeros((n, rows, columns, channels), wide.dtype)
        for y in range(offset_y, window, stride):
            for x in range(offset_x, window, stride):
                share = jnp.where(first == y * window + x, wide, 0)
                before = (y // stride, x // stride)
                after = (rows - share.shape[1] - before[0], columns - share.shape[2] - before[1])
                around = ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0))
                total = total + jnp.pad(share, around)
        return target.materialise(total)

    lines = [jnp.stack([phase(y, x) for x in range(stride)], axis=3) for y in range(stride)]
    whole = jnp.stack(lines, axis=2).reshape(n, rows * stride, columns * stride, channels)
    return whole[:, top : top + height, left : left + width]


Size = tuple[int, int]  # height and width of the images


def _max_pool_forward(
    images: Array, size: Size, window: int, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, ...]]:
    """Keep the places that won; on CPU what they are found from, which the network keeps too."""
    if target.backend() == "cpu":
        largest = largest_of(images, window, stride, padding)
        return largest, (images, largest)
    largest, first = largest_and_first(images, window, stride, padding)
    return largest, (first,)


def _max_pool_backward(
    size: Size,
    window: int,
    stride: int,
    padding: Padding,
    saved: tuple[Array, ...],
    gradient: Array,
) -> tuple[Array]:
    if len(saved) == 1:
        (first,) = saved
    else:
        images, largest = saved
        first = first_of(images, largest, window, stride, padding)
    inner = to_first(gradient, target.materialise(first), size, window, stride, padding)
    return (target.materialise(inner.astype(gradient.dtype)),)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(images: Array, size: Size, window: int, stride: int, padding: Padding) -> Array:
    return largest_of(images, window, stride, padding)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
