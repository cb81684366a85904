"""Batch normalisation, addition of a shortcut and ReLU, up to a largest value, as one."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxres.ops import target
from jaxres.ops.geometry import accumulation_dtype
from jaxres.ops.target import materialise


def batch_norm(
    images: Float[Array, "n h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shortcut: Float[Array, "n h w c"] | None = None,
    *,
    epsilon: float,
    relu: bool,
    max_value: float | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, "n h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalise by the batch's moments; add `shortcut`; with `relu`, zero what is negative.

    ReLU may have a `max_value`, to which larger values are cut: 6 for ReLU6.

    Gives the result in the dtype of `images` and the float32 mean and (biased) variance of each
    channel, which pass no gradient on. With `axis_name` the moments are over all devices.

    The gradient is written out (Ioffe and Szegedy 2015, section 3): backward keeps `images`, the
    result (the next convolution keeps it too) and numbers per channel, where the derived one also
    keeps images less their mean.
    """
    return _batch_norm(images, scale, bias, shortcut, epsilon, relu, max_value, axis_name)


def normalise(
    images: Float[Array, "n h w c"],
    mean: Float[Array, " c"],
    var: Float[Array, " c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shortcut: Float[Array, "n h w c"] | None = None,
    *,
    epsilon: float,
    relu: bool,
    max_value: float | None = None,
) -> Float[Array, "n h w c"]:
    """`batch_norm` with given moments: one multiply-add per value, in float32 at least."""
    chex.assert_rank(images, 4)
    chex.assert_shape([mean, var, scale, bias], images.shape[-1:])
    if shortcut is not None:
        chex.assert_equal_shape([images, shortcut])
    factor = scale * lax.rsqrt(var + epsilon)
    outputs = (_wide(images) - mean) * factor + bias
    if shortcut is not None:
        outputs = outputs + _wide(shortcut)
    if relu:
        outputs = jnp.clip(outputs, 0, max_value)
    return materialise(outputs.astype(images.dtype))


def _wide(images: Array) -> Array:
    return images.astype(accumulation_dtype(images))


def sums(*arrays: Float[Array, "n h w c"]) -> Sequence[Float[Array, " c"]]:
    """The sum over images and pixels of each array, channel by channel.

    On a GPU first over strips of each image and then of all arrays at once over the strips: as
    two kernels, not one more for each array.
    """
    if target.backend() != "gpu":
        return [array.sum((0, 1, 2)) for array in arrays]
    return [*jnp.stack([_strips(array).sum((1, 2)) for array in arrays]).sum(1)]


def _strips(images: Float[Array, "n h w c"]) -> Float[Array, "n_strips h_strip w c"]:
    """Images cut into strips of at most 512 pixels, where their height divides so.

    For longer sums XLA takes the arithmetic for the bottleneck, and has masks written by one kernel
    and read by another rather than found twice: 273 MB per image of a ResNet-50 step, not 268.
    """
    count, height, width, channels = images.shape
    divisors = (rows for rows in range(height, 0, -1) if height % rows == 0)
    rows = next((rows for rows in divisors if rows * width <= 512), 1)
    return images.reshape(count * height // rows, rows, width, channels)


def moments(
    images: Float[Array, "n h w c"], axis_name: str | None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance in one pass over the images: sums of x and of x * x."""
    wide = _wide(images)
    count = images.size // images.shape[-1]
    means = tuple(total / count for total in sums(wide, jnp.square(wide)))
    mean, mean_of_squares = means if axis_name is None else lax.pmean(means, axis_name)
    # Rounding can take the difference below zero where a channel hardly varies.
    return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)


def _forward(
    images: Array,
    scale: Array,
    bias: Array,
    shortcut: Array | None,
    epsilon: float,
    relu: bool,
    max_value: float | None,
    axis_name: str | None,
) -> tuple[tuple[Array, Array, Array], tuple[Any, ...]]:
    mean, var = moments(images, axis_name)
    given = {"epsilon": epsilon, "relu": relu, "max_value": max_value}
    outputs = normalise(images, mean, var, scale, bias, shortcut, **given)
    # Where no shortcut was added, an accelerator finds the mask again from `images`, which it reads
    # anyway: 5 MB less traffic per image of a ResNet-50 step. A CPU is bound by arithmetic.
    again = shortcut is None and target.backend() == "gpu"
    kept = outputs if relu and not again else None
    return (outputs, mean, var), (images, mean, var, scale, bias, kept, shortcut is not None)


def _backward(
    epsilon: float,
    relu: bool,
    max_value: float | None,
    axis_name: str | None,
    saved: tuple[Any, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, Array | None]:
    """Gradients of images, scale, bias and shortcut; those of the moments are left out."""
    images, mean, var, scale, bias, outputs, has_shortcut = saved
    gradient, values = gradients[0], _wide(images)
    inverse = lax.rsqrt(var + epsilon)
    factor = scale * inverse
    added = weighed = spread = gradient
    if relu and outputs is not None:
        added = weighed = spread = _where(_passes(outputs > 0, outputs, max_value), gradient)
    elif relu:
        # One question in three ways: of a common mask, or a common masked gradient, XLA has the
        # whole array written and read again by kernels that could as well find it themselves.
        shifted = (values - mean) * factor
        results = shifted + bias
        added = _where(_passes(results > 0, results, max_value), gradient)
        weighed = _where(_passes(shifted > -bias, results, max_value), gradient)
        spread = _where(_passes(-shifted < bias, results, max_value), gradient)
    count = images.size // images.shape[-1]
    to_bias, products = sums(_wide(added), _wide(weighed) * values)
    to_scale = (products - mean * to_bias) * inverse
    means = to_bias / count, to_scale / count
    slope, offset = backward_line(means, factor, mean, inverse, axis_name)
    to_images = (_wide(spread) * factor + values * slope + offset).astype(images.dtype)
    return to_images, to_scale, to_bias, added if has_shortcut else None


def backward_line(
    means: tuple[Array, Array], factor: Array, mean: Array, inverse: Array, axis_name: str | None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Slope and offset by which the moments' share of the gradient follows from what is normalised.

    The gradient of z is factor * gradient + slope * z + offset. `means` are over this device's
    pixels: of the gradient, and of the gradient by the normalised z.
    """
    mean_bias, mean_scale = means if axis_name is None else lax.pmean(means, axis_name)
    slope = -factor * inverse * mean_scale
    return slope, -factor * mean_bias - slope * mean


def _passes(positive: Array, results: Array, max_value: float | None) -> Array:
    """Where ReLU, up to `max_value`, lets the gradient through."""
    return positive if max_value is None else positive & (results < max_value)


def _where(passes: Array, gradient: Array) -> Array:
    return jnp.where(passes, gradient, jnp.zeros((), gradient.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _batch_norm(*arguments: Any) -> tuple[Array, Array, Array]:
    return _forward(*arguments)[0]


_batch_norm.defvjp(_forward, _backward)
