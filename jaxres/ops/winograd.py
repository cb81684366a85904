"""Winograd's minimal filtering for 3x3 convolutions of stride 1, as plain JAX.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015): with F(m x m,
3x3) every m x m tile of the output costs (m + 2)^2 products per channel pair instead of 9 m^2.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxres.ops.geometry import Padding
from jaxres.ops.groups import count_groups, map_groups, sum_groups
from jaxres.ops.target import materialise

Matrix = Float[np.ndarray, "rows columns"]
Positions = dict[tuple[int, int], Array]  # one array for each of the (m + 2)^2 positions of a tile

# Transformed tiles that fit the last-level cache (32 MiB) beside the products. 16 x 56 x 56 x 64
# float32, whole 49 MiB: 47 ms in one piece, 20 in two, 17 in four, 24 in eight.
GROUP_BYTES = 13 * 2**20
# Tiles of a group in a kernel gradient of 4x4 tiles: 56 px, 64 channels, batch 16 takes 19, 16 and
# 21 ms with 200, 400 and 800.
GROUP_TILES = 400


class Scheme(NamedTuple):
    """The matrices of F(m x m, 3x3) in the paper: B^T, G and A^T."""

    inputs: Matrix
    kernel: Matrix
    outputs: Matrix

    @property
    def tile(self) -> int:
        """m, the side of an output tile."""
        return len(self.outputs)

    @property
    def places(self) -> range:
        """Rows, or columns, of a transformed tile."""
        return range(len(self.inputs))


TWO = Scheme(
    inputs=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float),
    kernel=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    outputs=np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float),
)
FOUR = Scheme(
    inputs=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        float,
    ),
    kernel=np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    outputs=np.array(
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], float
    ),
)


def convolve(
    images: Float[Array, "n h w ci"], kernel: Float[Array, "3 3 ci co"], padding: Padding
) -> Float[Array, "n oh ow co"]:
    """The convolution of stride 1, by F(2x2, 3x3).

    F(4x4, 3x3) is up to 1.8 times as fast but ten times as far from float64 (1e-5 of the largest
    value instead of 1e-6), and a network's passes add that up.
    """
    return _convolve(images, _transform_kernel(lambda a, b: kernel[a, b], TWO), padding)


def input_gradient(
    gradient: Float[Array, "n oh ow co"], kernel: Float[Array, "3 3 ci co"], padding: Padding
) -> Float[Array, "n h w ci"]:
    """The gradient of the images: a convolution with the kernel turned by 180 degrees."""
    transformed = _transform_kernel(lambda a, b: kernel[2 - a, 2 - b], TWO)
    turned = {at: matrix.T for at, matrix in transformed.items()}
    (top, bottom), (left, right) = padding
    return _convolve(gradient, turned, ((2 - top, 2 - bottom), (2 - left, 2 - right)))


def kernel_gradient(
    images: Float[Array, "n h w ci"], gradient: Float[Array, "n oh ow co"], padding: Padding
) -> Float[Array, "3 3 ci co"]:
    """The gradient of the kernel: the transposed algorithm, products over the tiles.

    By F(4x4, 3x3), whose rounding is no larger than F(2x2, 3x3)'s here because every value is a sum
    over all tiles: 56 px, 64 channels, batch 16 in 16 ms instead of 31, 28 px, 128 in 11 instead of
    18. Images of less than a tile are left to the smaller one (2 px, 512: 5 ms instead of 14).
    """
    n, (height, width) = gradient.shape[0], gradient.shape[1:3]
    if min(height, width) < FOUR.tile:
        scheme, groups = TWO, _groups(images, padding)
    else:
        scheme, (rows, columns) = FOUR, _tiles(height, width, FOUR)
        groups = count_groups(n, max(1, n * rows * columns // GROUP_TILES))
    return sum_groups(
        lambda images, gradient: _group_kernel_gradient(images, gradient, padding, scheme),
        (images, gradient),
        groups,
    )


def _group_kernel_gradient(
    images: Float[Array, "n h w ci"],
    gradient: Float[Array, "n oh ow co"],
    padding: Padding,
    scheme: Scheme,
) -> Float[Array, "3 3 ci co"]:
    height, width = gradient.shape[1:3]
    (rows, columns), tile = _tiles(height, width, scheme), scheme.tile
    overhang = ((0, rows * tile - height), (0, columns * tile - width))
    padded = jnp.pad(gradient, ((0, 0), *overhang, (0, 0)))
    spread = _both_ways(
        scheme.outputs.T,
        [padded[:, a::tile] for a in range(tile)],
        lambda line: [line[:, :, b::tile] for b in range(tile)],
    )
    tiles = _transform_tiles(images, padding, scheme)
    products = {at: tiles[at].T @ _flat(spread[at]) for at in tiles}
    back = scheme.kernel.T
    columns = [_combine(back, [products[i, j] for i in scheme.places]) for j in scheme.places]
    columns = materialise(columns)  # 512 channels: 5 ms less than 36 products in each place
    places = [_combine(back, [column[a] for column in columns]) for a in range(3)]
    return jnp.stack([jnp.stack(line) for line in places])


def _transform_kernel(tap: Callable[[int, int], Array], scheme: Scheme) -> Positions:
    """G g G^T: for each position a matrix of channels by features.

    Sums, not products by G: those cost 10 ms for 256 channels, more than the convolution gains.
    """
    columns = [_combine(scheme.kernel, [tap(a, b) for a in range(3)]) for b in range(3)]
    lines = [_combine(scheme.kernel, [column[i] for column in columns]) for i in scheme.places]
    return {(i, j): value for i, line in enumerate(lines) for j, value in enumerate(line)}


def _convolve(
    images: Float[Array, "n h w ci"], kernel: Positions, padding: Padding
) -> Float[Array, "n oh ow co"]:
    return map_groups(
        lambda group: _convolve_group(group, kernel, padding), (images,), _groups(images, padding)
    )


def _convolve_group(
    images: Float[Array, "n h w ci"], kernel: Positions, padding: Padding
) -> Float[Array, "n oh ow co"]:
    n, (height, width) = images.shape[0], _output_size(images, padding)
    tiles = _transform_tiles(images, padding, TWO)
    products = {at: tiles[at] @ kernel[at] for at in tiles}
    (rows, columns), features = _tiles(height, width, TWO), kernel[0, 0].shape[1]
    lines = [_combine(TWO.outputs, [products[i, j] for j in TWO.places]) for i in TWO.places]
    pairs = [_combine(TWO.outputs, [line[b] for line in lines]) for b in range(2)]

    def output_of(a: int, b: int) -> Float[Array, "n rows columns co"]:
        return jnp.reshape(pairs[b][a], (n, rows, columns, features))

    outputs = [jnp.stack([output_of(a, b) for b in range(2)], axis=3) for a in range(2)]
    whole = jnp.stack(outputs, axis=2).reshape(n, 2 * rows, 2 * columns, features)
    return whole[:, :height, :width]


def _transform_tiles(
    images: Float[Array, "n h w ci"], padding: Padding, scheme: Scheme
) -> dict[tuple[int, int], Float[Array, "tiles ci"]]:
    """B^T d B of every tile: for each position a matrix of tiles by channels."""
    (height, width), tile = _output_size(images, padding), scheme.tile
    (rows, columns), (vertical, horizontal) = _tiles(height, width, scheme), padding
    overhang = (
        (vertical[0], vertical[1] + rows * tile - height),
        (horizontal[0], horizontal[1] + columns * tile - width),
    )
    padded = jnp.pad(images, ((0, 0), *overhang, (0, 0)))
    transformed = _both_ways(
        scheme.inputs,
        [padded[:, i : i + (rows - 1) * tile + 1 : tile] for i in scheme.places],
        lambda line: [line[:, :, j : j + (columns - 1) * tile + 1 : tile] for j in scheme.places],
    )
    return {at: _flat(values) for at, values in transformed.items()}


def _both_ways(
    matrix: Matrix, rows: Sequence[Array], columns_of: Callable[[Array], list[Array]]
) -> Positions:
    """The products of a matrix by tiles from the left and of its transpose from the right."""
    lines = _combine(matrix, rows)
    if len(matrix) > len(TWO.inputs):
        lines = materialise(lines)  # or each of 36 sums reads up to 16 places of the images
    return {
        (i, j): value
        for i, line in enumerate(lines)
        for j, value in enumerate(_combine(matrix, columns_of(line)))
    }


def _combine(matrix: Matrix, arrays: Sequence[Array]) -> list[Array]:
    """The product of a matrix by a vector of arrays, without the zeros."""
    products = (
        [
            array if factor == 1 else float(factor) * array
            for factor, array in zip(line, arrays, strict=True)
            if factor
        ]
        for line in matrix
    )
    return [functools.reduce(operator.add, terms) for terms in products]


def _flat(tiles: Float[Array, "n rows columns c"]) -> Float[Array, "tiles c"]:
    return jnp.reshape(tiles, (-1, tiles.shape[3]))


def _groups(images: Float[Array, "n h w ci"], padding: Padding) -> int:
    """Into how many groups the images go, for the 2x2 tiles of one to fit the cache."""
    n, (rows, columns) = images.shape[0], _tiles(*_output_size(images, padding), TWO)
    total = n * rows * columns * 16 * images.shape[3] * images.dtype.itemsize
    return count_groups(n, -(-total // GROUP_BYTES))


def _tiles(height: int, width: int, scheme: Scheme) -> tuple[int, int]:
    """Rows and columns of output tiles."""
    return -(-height // scheme.tile), -(-width // scheme.tile)


def _output_size(images: Float[Array, "n h w ci"], padding: Padding) -> tuple[int, int]:
    (top, bottom), (left, right) = padding
    return images.shape[1] + top + bottom - 2, images.shape[2] + left + right - 2
