"""Batch normalisation folded into the 1x1 convolution before it, for training.

With z = y W, where W widens k channels to c, E[z] = E[y] W and Var[z] = diag(W' Cov[y] W): the
moments of z follow from the k x k second moments of y. So the scale goes into W and the shift into
a bias, one convolution gives the result, and z, which is wider than y, is never stored. Backward
needs no z either: with g the gradient of the result, the sum of g z is that of W * (y' g).

On accelerators, which memory traffic bounds, this saves a fifth to a quarter of a ResNet-50 step's
bytes, for 5 % more arithmetic. On CPU it is slower (0.94 of the step's speed at 224 px, batch 16).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxres.ops import target
from jaxres.ops.conv import conv2d
from jaxres.ops.geometry import accumulation_dtype
from jaxres.ops.norm import backward_line


def pays(channels: int, features: int) -> bool:
    """Whether folding saves traffic: if the convolution doubles the channels at least.

    The second moments and their gradient read y three times more, and spare nine passes over z.
    """
    return features >= 2 * channels


def conv_batch_norm(
    images: Float[Array, "n h w k"],
    kernel: Float[Array, "k c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    shortcut: Float[Array, "n oh ow c"] | None = None,
    *,
    stride: int = 1,
    epsilon: float,
    relu: bool,
    axis_name: str | None = None,
) -> tuple[Float[Array, "n oh ow c"], Float[Array, " c"], Float[Array, " c"]]:
    """`norm.batch_norm` of a 1x1 convolution: convolve, normalise, add `shortcut`, apply ReLU.

    Gives the result in the dtype of `images`, and the float32 mean and (biased) variance of each
    channel of the convolution, which pass no gradient on. With `axis_name` the moments are over all
    devices. The kernel is float32 and is rounded to the dtype of `images` after it is scaled.
    """
    taken = images[:, ::stride, ::stride]
    return _conv_batch_norm(taken, kernel, scale, bias, shortcut, epsilon, relu, axis_name)


def _products(left: Float[Array, "n h w a"], right: Float[Array, "n h w b"]) -> Float[Array, "a b"]:
    """The mean over images and pixels of left' right, in float32 at least."""
    # bfloat16 products are exact in float32; float32 ones must not be rounded to bfloat16.
    precision = None if left.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    groups = _groups(left.shape[0], left.shape[-1] * right.shape[-1])
    left, right = (each.reshape(groups, -1, each.shape[-1]) for each in (left, right))
    sums = lax.dot_general(
        left,
        right,
        (((1,), (1,)), ((0,), (0,))),
        precision=precision,
        preferred_element_type=accumulation_dtype(left),
    )
    return sums.sum(0) / (left.size // left.shape[-1])


def _groups(images: int, size: int) -> int:
    """Into how many groups of images a GPU's product of `size` values is cut.

    Enough for each of its processors to have a tile or two. XLA would cut the pixels instead, and
    first copy them with zeros at the end where their number does not divide: S1's 70 images moved
    361 MB each in place of 304.
    """
    if target.backend() != "gpu":
        return 1
    wanted = max(1, 256 * 64 * 128 // size)
    return next(count for count in range(min(wanted, images), 0, -1) if images % count == 0)


def _matmul(left: Array, right: Array) -> Array:
    """A product of small float32 matrices, exact on accelerators too."""
    return jnp.matmul(left, right, precision=lax.Precision.HIGHEST)


def _conv(images: Float[Array, "n h w a"], kernel: Float[Array, "a b"]) -> Float[Array, "n h w b"]:
    return conv2d(images, kernel.astype(images.dtype)[None, None])


def _forward(
    images: Array,
    kernel: Array,
    scale: Array,
    bias: Array,
    shortcut: Array | None,
    epsilon: float,
    relu: bool,
    axis_name: str | None,
) -> tuple[tuple[Array, Array, Array], tuple[Any, ...]]:
    own_moment = _products(images, images)
    own_mean = images.mean((0, 1, 2), dtype=accumulation_dtype(images))
    moment, mean_in = own_moment, own_mean
    if axis_name is not None:
        moment, mean_in = lax.pmean((own_moment, own_mean), axis_name)
    mean = _matmul(mean_in, kernel)
    products = _matmul(moment, kernel)  # E[y z']
    # Rounding can take the difference below zero where a channel hardly varies.
    var = jnp.maximum((kernel * products).sum(0) - jnp.square(mean), 0.0)
    inverse = lax.rsqrt(var + epsilon)
    factor = scale * inverse
    outputs = _conv(images, kernel * factor) + (bias - mean * factor).astype(images.dtype)
    if shortcut is not None:
        outputs = outputs + shortcut
    if relu:
        outputs = jnp.maximum(outputs, 0)
    own_products = products if axis_name is None else _matmul(own_moment, kernel)
    kept = outputs if relu else None
    small = (kernel, scale, own_products, own_mean, mean_in, mean, inverse)
    return (outputs, mean, var), (images, *small, kept, shortcut is not None)


def _backward(
    epsilon: float,
    relu: bool,
    axis_name: str | None,
    saved: tuple[Any, ...],
    gradients: tuple[Array, Array, Array],
) -> tuple[Array, Array, Array, Array, Array | None]:
    """Gradients of images, kernel, scale, bias and shortcut; the moments' are left out."""
    images, kernel, scale, own_products, own_mean, mean_in, mean, inverse, outputs, adds = saved
    gradient = gradients[0]
    if relu:
        # Not `outputs > 0`: XLA takes that for a question about the input of ReLU, and keeps both.
        gradient = jnp.where(outputs != 0, gradient, jnp.zeros((), gradient.dtype))
    count = images.size // images.shape[-1]
    to_bias = gradient.sum((0, 1, 2), dtype=accumulation_dtype(gradient))
    products = _products(images, gradient)
    # Means over this device's pixels of the gradient, and of the gradient by the normalised z.
    own_bias = to_bias / count
    own_scale = (kernel * (products - mean_in[:, None] * own_bias)).sum(0) * inverse
    factor = scale * inverse
    slope, offset = backward_line((own_bias, own_scale), factor, mean, inverse, axis_name)
    to_kernel = count * (products * factor + own_products * slope + own_mean[:, None] * offset)
    back = _matmul(kernel * slope, kernel.T)
    shift = _matmul(kernel, offset).astype(images.dtype)
    to_images = _conv(gradient, (kernel * factor).T) + (_conv(images, back) + shift)
    return to_images, to_kernel, own_scale * count, to_bias, gradient if adds else None


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _conv_batch_norm(*arguments: Any) -> tuple[Array, Array, Array]:
    return _forward(*arguments)[0]


_conv_batch_norm.defvjp(_forward, _backward)
