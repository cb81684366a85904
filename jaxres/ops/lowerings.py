"""Ways of computing a convolution and its gradients; `conv.py` chooses among them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jaxres.ops import winograd
from jaxres.ops.geometry import Geometry

GROUP_ROWS = 4096  # pixels of a group of pictures in a kernel gradient


class Lowering(NamedTuple):
    """One way of computing a convolution. A gradient that is None is derived from `forward`."""

    applies: Callable[[Geometry], bool]
    forward: Callable[[Array, Array, Geometry], Array]
    input_gradient: Callable[[Array, Array, Geometry], Array] | None = None
    kernel_gradient: Callable[[Array, Array, Geometry], Array] | None = None


def _xla(images: Array, kernel: Array, geometry: Geometry) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        geometry.stride,
        geometry.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def _dot(images: Array, kernel: Array, geometry: Geometry) -> Array:
    stride_y, stride_x = geometry.stride
    return images[:, ::stride_y, ::stride_x] @ kernel[0, 0]


def _dot_kernel_gradient(images: Array, gradient: Array, geometry: Geometry) -> Array:
    stride_y, stride_x = geometry.stride
    taken = images[:, ::stride_y, ::stride_x]

    def of_group(images: Array, gradient: Array) -> Array:
        return _rows(images).T @ _rows(gradient)

    return _sum_groups(of_group, taken, gradient, geometry)[None, None]


def _rows(pictures: Array) -> Array:
    return pictures.reshape(-1, pictures.shape[-1])


def _sum_groups(
    function: Callable[[Array, Array], Array], images: Array, gradient: Array, geometry: Geometry
) -> Array:
    """The sum of `function` over groups of pictures, one after the other.

    In one piece XLA merges the transposition that a kernel gradient's product needs with the
    operations that made its operands, and takes strides through all of them: a ResNet-50 step at
    224 px, batch 16 takes 5.3 s that way and 3.5 s with groups of one picture (four: 3.7).
    """
    height, width = geometry.output_size
    wanted = max(2, geometry.batch * height * width // GROUP_ROWS)
    n = geometry.batch
    groups = next((count for count in range(wanted, n + 1) if n % count == 0), n)
    if groups == 1:
        return function(images, gradient)
    cut = [array.reshape(groups, n // groups, *array.shape[1:]) for array in (images, gradient)]
    one = jax.eval_shape(function, cut[0][0], cut[1][0])
    zeros = jnp.zeros(one.shape, jnp.promote_types(one.dtype, jnp.float32))

    def add(total: Array, group: list[Array]) -> tuple[Array, None]:
        return total + function(*group), None

    total, _ = lax.scan(add, zeros, cut)
    return total.astype(one.dtype)


def _taps(images: Array, geometry: Geometry) -> list[Array]:
    """For each place of the kernel, row by row, what it reads: arrays of the output's size."""
    (height, width), (stride_y, stride_x) = geometry.output_size, geometry.stride
    padded = jnp.pad(images, ((0, 0), *geometry.padding, (0, 0)))
    return [
        padded[
            :,
            y : y + (height - 1) * stride_y + 1 : stride_y,
            x : x + (width - 1) * stride_x + 1 : stride_x,
        ]
        for y in range(geometry.kernel[0])
        for x in range(geometry.kernel[1])
    ]


def _patches(images: Array, kernel: Array, geometry: Geometry) -> Array:
    taps, groups = _taps(images, geometry), geometry.groups
    if groups == 1:
        return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, geometry.features)
    shape = (geometry.batch, *geometry.output_size)
    patches = jnp.stack(taps, axis=3).reshape(*shape, len(taps), groups, -1)
    kernels = kernel.reshape(len(taps), geometry.channels // groups, groups, -1)
    return jnp.einsum("nyxtgi,tigo->nyxgo", patches, kernels).reshape(*shape, geometry.features)


def _shifted(images: Array, kernel: Array, geometry: Geometry) -> Array:
    """Depthwise: multiply each shifted picture by its place of the kernel and add."""
    weights = kernel.reshape(-1, geometry.features).astype(
        jnp.promote_types(kernel.dtype, "float32")
    )
    copies = geometry.features // geometry.channels
    taps = _taps(images if copies == 1 else jnp.repeat(images, copies, axis=-1), geometry)
    total = sum(tap * weight for tap, weight in zip(taps, weights, strict=True))
    return jnp.asarray(total, images.dtype)


def _shifted_kernel_gradient(images: Array, gradient: Array, geometry: Geometry) -> Array:
    """One picture at a time, in cache: 16 ms against 81 (56 px, 144 channels, batch 16)."""
    one = geometry._replace(batch=1)
    copies = geometry.features // geometry.channels
    images = images if copies == 1 else jnp.repeat(images, copies, axis=-1)

    def of_picture(picture_and_gradient: tuple[Array, Array]) -> Array:
        picture, gradient = picture_and_gradient
        wide = jnp.promote_types(gradient.dtype, "float32")
        return jnp.stack(
            [(tap[0] * gradient).sum((0, 1), dtype=wide) for tap in _taps(picture[None], one)]
        )

    sums = lax.map(of_picture, (images, gradient)).sum(0)
    return sums.astype(images.dtype).reshape(*geometry.kernel, 1, geometry.features)


def _winograd(images: Array, kernel: Array, geometry: Geometry) -> Array:
    return winograd.convolve(images, kernel, geometry.padding)


def _winograd_input_gradient(gradient: Array, kernel: Array, geometry: Geometry) -> Array:
    return winograd.input_gradient(gradient, kernel, geometry.padding)


def _winograd_kernel_gradient(images: Array, gradient: Array, geometry: Geometry) -> Array:
    return winograd.kernel_gradient(images, gradient, geometry.padding)


LOWERINGS = {
    "xla": Lowering(lambda geometry: True, _xla),
    "dot": Lowering(
        lambda geometry: geometry.pointwise, _dot, kernel_gradient=_dot_kernel_gradient
    ),
    "patches": Lowering(lambda geometry: True, _patches),
    "shifted": Lowering(
        lambda geometry: geometry.depthwise, _shifted, kernel_gradient=_shifted_kernel_gradient
    ),
    "winograd": Lowering(
        lambda geometry: geometry.winograd,
        _winograd,
        _winograd_input_gradient,
        _winograd_kernel_gradient,
    ),
}
