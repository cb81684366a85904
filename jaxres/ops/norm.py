"""Batch normalisation, addition of a shortcut and rectification, up to a ceiling, as one."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxres.ops.target import materialise


def batch_norm(
    images: Float[Array, "n h w c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shortcut: Float[Array, "n h w c"] | None = None,
    *,
    epsilon: float,
    rectify: bool,
    ceiling: float | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, "n h w c"], Float[Array, " c"], Float[Array, " c"]]:
    """Normalise by the batch's moments; add `shortcut`; with `rectify`, zero what is negative.

    What is rectified may have a `ceiling`, to which larger values are cut: 6 for ReLU6.

    Gives the result in the dtype of `images` and the float32 mean and (biased) variance of each
    channel, which pass no gradient on. With `axis_name` the moments are over all devices.

    The gradient is written out (Ioffe and Szegedy 2015, section 3): backward keeps `images`, the
    result (the next convolution keeps it too) and numbers per channel, where the derived one also
    keeps images less their mean.
    """
    return _batch_norm(images, scale, bias, shortcut, epsilon, rectify, ceiling, axis_name)


def normalise(
    images: Float[Array, "n h w c"],
    mean: Float[Array, " c"],
    var: Float[Array, " c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shortcut: Float[Array, "n h w c"] | None = None,
    *,
    epsilon: float,
    rectify: bool,
    ceiling: float | None = None,
) -> Float[Array, "n h w c"]:
    """The same with given moments: one multiply-add per value, in float32 at least."""
    factor = scale * lax.rsqrt(var + epsilon)
    outputs = (_wide(images) - mean) * factor + bias
    if shortcut is not None:
        outputs = outputs + _wide(shortcut)
    if rectify:
        outputs = jnp.clip(outputs, 0, ceiling)
    return materialise(outputs.astype(images.dtype))


def _wide(images: Array) -> Array:
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def moments(
    images: Float[Array, "n h w c"], axis_name: str | None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance in one pass over the pictures: sums of x and of x * x."""
    wide = _wide(images)
    means = wide.mean((0, 1, 2)), jnp.square(wide).mean((0, 1, 2))
    mean, mean_of_squares = means if axis_name is None else lax.pmean(means, axis_name)
    # Rounding can take the difference below zero where a channel hardly varies.
    return mean, jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _batch_norm(
    images: Array,
    scale: Array,
    bias: Array,
    shortcut: Array | None,
    epsilon: float,
    rectify: bool,
    ceiling: float | None,
    axis_name: str | None,
) -> tuple[Array, Array, Array]:
    mean, var = moments(images, axis_name)
    given = {"epsilon": epsilon, "rectify": rectify, "ceiling": ceiling}
    outputs = normalise(images, mean, var, scale, bias, shortcut, **given)
    return outputs, mean, var


def _forward(
    images: Array,
    scale: Array,
    bias: Array,
    shortcut: Array | None,
    epsilon: float,
    rectify: bool,
    ceiling: float | None,
    axis_name: str | None,
) -> tuple[tuple[Array, Array, Array], tuple[Any, ...]]:
    results: Any = _batch_norm(images, scale, bias, shortcut, epsilon, rectify, ceiling, axis_name)
    outputs, mean, var = results
    kept = outputs if rectify else None
    return results, (images, mean, var, scale, kept, shortcut is not None)


def _backward(
    epsilon: float,
    rectify: bool,
    ceiling: float | None,
    axis_name: str | None,
    saved: tuple[Any, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, Array | None]:
    """Gradients of pictures, scale, bias and shortcut; those of the moments are left out."""
    images, mean, var, scale, outputs, has_shortcut = saved
    gradient = gradients[0]
    if rectify:
        passes = outputs > 0
        if ceiling is not None:
            passes &= outputs < ceiling
        gradient = jnp.where(passes, gradient, jnp.zeros((), gradient.dtype))
    wide, values = _wide(gradient), _wide(images)
    inverse = lax.rsqrt(var + epsilon)
    count = images.size // images.shape[-1]
    to_bias = wide.sum((0, 1, 2))
    to_scale = ((wide * values).sum((0, 1, 2)) - mean * to_bias) * inverse
    means = to_bias / count, to_scale / count
    mean_bias, mean_scale = means if axis_name is None else lax.pmean(means, axis_name)
    factor = scale * inverse
    slope = -factor * inverse * mean_scale
    offset = -factor * mean_bias - slope * mean
    to_images = (wide * factor + values * slope + offset).astype(images.dtype)
    return to_images, to_scale, to_bias, gradient if has_shortcut else None


_batch_norm.defvjp(_forward, _backward)
