"""Filters and pooling on an image, by the networks' own operations, and a network's first filters.

The kernels and the kinds of pooling are those of study S5.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from jaxres.models.pure import PyTree, flatten
from jaxres.ops import pool
from jaxres.ops.conv import conv2d
from jaxres.runtime.errors import InputError

# 3x3, row by row, with what they are divided by.
KERNELS: dict[str, tuple[tuple[int, ...], int]] = {
    "edge": ((-1, -1, -1, -1, 8, -1, -1, -1, -1), 1),
    "sharpen": ((0, -1, 0, -1, 5, -1, 0, -1, 0), 1),
    "vertical edge (Sobel)": ((-1, 0, 1, -2, 0, 2, -1, 0, 1), 1),
    "horizontal edge (Sobel)": ((-1, -2, -1, 0, 0, 0, 1, 2, 1), 1),
    "emboss": ((-2, -1, 0, -1, 1, 1, 0, 1, 2), 1),
    "blur": ((1, 2, 1, 2, 4, 2, 1, 2, 1), 16),
}

KINDS = ("max", "average", "depthwise")
MOST_WINDOW = 16  # pixels; the networks' maximum takes a step for each place of its window


def kernel_of(name: str) -> Float32[np.ndarray, "3 3"]:
    """The numbers of one of `KERNELS`."""
    numbers, divisor = KERNELS[name]
    return np.array(numbers, np.float32).reshape(3, 3) / divisor


def filtered(
    image: UInt8[np.ndarray, "h w 3"], kernel: Float32[np.ndarray, "3 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Each colour convolved as networks do (cross-correlation), rounded and clipped to 0..255.

    Beyond the border the image is mirrored at its last pixel, as OpenCV's filter2D does.
    """
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect").astype(np.float32)
    kernels = np.repeat(kernel[:, :, None, None], 3, axis=3)
    output = conv2d(jnp.asarray(padded[None]), jnp.asarray(kernels), groups=3)
    return _as_image(np.asarray(output)[0])


def pooled(image: UInt8[np.ndarray, "h w 3"], size: int) -> dict[str, UInt8[np.ndarray, "..."]]:
    """The image pooled over windows of `size` pixels, `max` and `average`, and over its colours.

    A last row or column that fills no window is left out. `depthwise` is the maximum of red, green
    and blue at every pixel.

    Raises:
        InputError: the window is a single pixel, or larger than the image or `MOST_WINDOW`.
    """
    most = min(MOST_WINDOW, *image.shape[:2])
    if not 2 <= size <= most:
        raise InputError(f"--size is {size}; allowed here: 2 to {most}")

    def kinds(images: Array) -> dict[str, Array]:
        return {
            "max": pool.max_pool(images, window=size, stride=size),
            "average": pool.average_pool(images, window=size, stride=size),
            "depthwise": jnp.broadcast_to(pool.channel_pool(images, window=3), images.shape),
        }

    outputs = jax.jit(kinds)(image[None].astype(np.float32))
    return {kind: _as_image(np.asarray(outputs[kind])[0]) for kind in KINDS}


def first_kernel(params: PyTree) -> tuple[str, Float32[np.ndarray, "kh kw 3 k"]]:
    """Name and kernel of the convolution that reads the image's three colours.

    Raises:
        InputError: there is none, as in a fully connected network.
    """
    for name, leaf in flatten(params).items():
        if leaf.ndim == 4 and leaf.shape[2] == 3:
            return name, np.asarray(leaf, np.float32)
    raise InputError(
        "the network has no convolution that reads an image's colours: it is fully connected; "
        "allowed: runs of convolutional networks"
    )


def kernel_images(kernel: Float32[np.ndarray, "kh kw 3 k"]) -> UInt8[np.ndarray, "k kh kw 3"]:
    """Each filter as an image of its own, from its smallest number, 0, to its largest, 255."""
    filters = np.moveaxis(kernel, -1, 0)
    low, high = (f(filters, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    return _as_image(255 * (filters - low) / np.where(high > low, high - low, 1))


def _as_image(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
