"""Winograd's minimal filtering for 3x3 convolutions of stride 1, as plain JAX.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), F(2x2, 3x3):
every 2x2 tile of the output costs 16 products per channel pair instead of 36.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

Padding = tuple[tuple[int, int], tuple[int, int]]

# Transformed tiles that fit the last-level cache (32 MiB) beside the products. 16 x 56 x 56 x 64
# float32, whole 49 MiB: 47 ms in one piece, 20 in two, 17 in four, 24 in eight; its kernel gradient
# 67, 48, 35 (four).
GROUP_BYTES = 13 * 2**20

# Each row of B^T of the paper holds two non-zeros: (tap, sign), (tap, sign).
_TILE_TERMS = (((0, 1), (2, -1)), ((1, 1), (2, 1)), ((2, 1), (1, -1)), ((1, 1), (3, -1)))
_OUTPUT_MATRIX = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T of the paper
_TURNED = (3, 1, 2, 0)  # rows of G times the reversed kernel, as rows of G times the kernel
_POSITIONS = tuple((i, j) for i in range(4) for j in range(4))


def map_groups(
    function: Callable[..., Array], arrays: tuple[Array, ...], total_bytes: int
) -> Shaped[Array, "groups ..."]:
    """`function` of equal groups of pictures, few enough at a time for the cache.

    `arrays` have the pictures in front; `total_bytes` is what all of them together would need.
    """
    n = arrays[0].shape[0]
    wanted = min(n, -(-total_bytes // GROUP_BYTES))
    groups = next(count for count in range(wanted, n + 1) if n % count == 0)
    if groups == 1:
        return function(*arrays)[None]
    grouped = tuple(array.reshape(groups, n // groups, *array.shape[1:]) for array in arrays)
    return jax.lax.map(lambda group: function(*group), grouped)


def convolve(
    images: Float[Array, "n h w ci"], kernel: Float[Array, "3 3 ci co"], padding: Padding
) -> Float[Array, "n oh ow co"]:
    """The convolution of stride 1."""
    return _convolve(images, _transform_kernel(kernel), padding)


def input_gradient(
    gradient: Float[Array, "n oh ow co"], kernel: Float[Array, "3 3 ci co"], padding: Padding
) -> Float[Array, "n h w ci"]:
    """The gradient of the pictures: a convolution with the kernel turned by 180 degrees.

    Turning and transposing happen after the kernel's transform, where turning is a change of
    names: 512 channels at 4 px, batch 16 take 20 ms the other way round.
    """
    transformed = _transform_kernel(kernel)
    turned = {(i, j): transformed[_TURNED[i], _TURNED[j]].T for i, j in _POSITIONS}
    (top, bottom), (left, right) = padding
    return _convolve(gradient, turned, ((2 - top, 2 - bottom), (2 - left, 2 - right)))


def kernel_gradient(
    images: Float[Array, "n h w ci"], gradient: Float[Array, "n oh ow co"], padding: Padding
) -> Float[Array, "3 3 ci co"]:
    """The gradient of the kernel: the transposed algorithm, 16 products over the tiles."""
    shares = map_groups(
        lambda images, gradient: _group_kernel_gradient(images, gradient, padding),
        (images, gradient),
        _tile_bytes(images, padding),
    )
    return shares.sum(0)


def _group_kernel_gradient(
    images: Float[Array, "n h w ci"], gradient: Float[Array, "n oh ow co"], padding: Padding
) -> Float[Array, "3 3 ci co"]:
    height, width = gradient.shape[1:3]
    tiles = _transform_tiles(images, padding)
    gradient = jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    quarters = [[gradient[:, a::2, b::2] for b in range(2)] for a in range(2)]
    products = {}
    for i, j in _POSITIONS:
        spread = sum(
            float(_OUTPUT_MATRIX[a][i] * _OUTPUT_MATRIX[b][j]) * quarters[a][b]
            for a in range(2)
            for b in range(2)
            if _OUTPUT_MATRIX[a][i] * _OUTPUT_MATRIX[b][j]
        )
        products[i, j] = tiles[i, j].T @ jnp.reshape(spread, (-1, gradient.shape[3]))
    lines = [_transpose_three([products[i, j] for j in range(4)]) for i in range(4)]
    places = [_transpose_three([line[b] for line in lines]) for b in range(3)]
    return jnp.stack([jnp.stack([places[b][a] for b in range(3)]) for a in range(3)])


def _transform_kernel(kernel: Float[Array, "3 3 ci co"]) -> dict[tuple[int, int], Array]:
    """G g G^T: for each of the 16 positions a matrix of channels by features.

    Sums, not products by G: those cost 10 ms for 256 channels, more than the convolution gains.
    """
    lines = [_transform_three([kernel[a, b] for b in range(3)]) for a in range(3)]
    columns = [_transform_three([line[j] for line in lines]) for j in range(4)]
    return {(i, j): columns[j][i] for i, j in _POSITIONS}


def _transform_three(taps: list[Array]) -> list[Array]:
    """G times three values."""
    middle, outer = taps[1] / 2, (taps[0] + taps[2]) / 2
    return [taps[0], outer + middle, outer - middle, taps[2]]


def _transpose_three(values: list[Array]) -> list[Array]:
    """G^T times four values."""
    outer = (values[1] + values[2]) / 2
    return [values[0] + outer, (values[1] - values[2]) / 2, outer + values[3]]


def _convolve(
    images: Float[Array, "n h w ci"],
    kernel: dict[tuple[int, int], Float[Array, "ci co"]],
    padding: Padding,
) -> Float[Array, "n oh ow co"]:
    outputs = map_groups(
        lambda group: _convolve_group(group, kernel, padding),
        (images,),
        _tile_bytes(images, padding),
    )
    return outputs.reshape(-1, *outputs.shape[2:])


def _convolve_group(
    images: Float[Array, "n h w ci"],
    kernel: dict[tuple[int, int], Float[Array, "ci co"]],
    padding: Padding,
) -> Float[Array, "n oh ow co"]:
    n, (height, width) = images.shape[0], _output_size(images, padding)
    tiles = _transform_tiles(images, padding)
    products = {at: tiles[at] @ kernel[at] for at in _POSITIONS}
    rows, columns, features = -(-height // 2), -(-width // 2), kernel[0, 0].shape[1]

    def output_of(a: int, b: int) -> Float[Array, "n rows columns co"]:
        signs = {(i, j): _OUTPUT_MATRIX[a][i] * _OUTPUT_MATRIX[b][j] for i, j in _POSITIONS}
        terms = sum(float(sign) * products[at] for at, sign in signs.items() if sign)
        return jnp.reshape(terms, (n, rows, columns, features))

    pairs = [jnp.stack([output_of(a, 0), output_of(a, 1)], axis=3) for a in range(2)]
    outputs = jnp.stack(pairs, axis=2).reshape(n, 2 * rows, 2 * columns, features)
    return outputs[:, :height, :width]


def _transform_tiles(
    images: Float[Array, "n h w ci"], padding: Padding
) -> dict[tuple[int, int], Float[Array, "tiles ci"]]:
    """B^T d B of every 4x4 tile: for each of the 16 positions a matrix of tiles by channels."""
    height, width = _output_size(images, padding)
    (top, bottom), (left, right) = padding
    padded = jnp.pad(
        images, ((0, 0), (top, bottom + height % 2), (left, right + width % 2), (0, 0))
    )
    last_row, last_column = height + height % 2 - 1, width + width % 2 - 1

    def taps(row: int, column: int) -> Float[Array, "n rows columns ci"]:
        return padded[:, row : row + last_row : 2, column : column + last_column : 2]

    def transform(i: int, j: int) -> Float[Array, "tiles ci"]:
        (r0, _), (r1, row_sign) = _TILE_TERMS[i]
        (c0, _), (c1, column_sign) = _TILE_TERMS[j]
        upper = taps(r0, c0) + column_sign * taps(r0, c1)
        lower = taps(r1, c0) + column_sign * taps(r1, c1)
        return jnp.reshape(upper + row_sign * lower, (-1, images.shape[3]))

    return {at: transform(*at) for at in _POSITIONS}


def _tile_bytes(images: Float[Array, "n h w ci"], padding: Padding) -> int:
    """Size of the transformed tiles of all pictures."""
    n, (height, width) = images.shape[0], _output_size(images, padding)
    tiles = n * -(-height // 2) * -(-width // 2)
    return tiles * 16 * images.shape[3] * images.dtype.itemsize


def _output_size(images: Float[Array, "n h w ci"], padding: Padding) -> tuple[int, int]:
    (top, bottom), (left, right) = padding
    return images.shape[1] + top + bottom - 2, images.shape[2] + left + right - 2
