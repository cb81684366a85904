"""Work on a batch of images a group at a time, so that what is between stays in the cache.

Groups are sliced inside the loop from the whole arrays. XLA therefore computes those once, before
the loop; groups cut beforehand are merged, on CPU, with the operations that made the images, and
each loop and each product repeats these operations for itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from jaxres.ops.geometry import accumulation_dtype


def count_groups(images: int, wanted: int) -> int:
    """The smallest number of equal groups that is `wanted` or more, at most one per image."""
    return next((count for count in range(wanted, images + 1) if images % count == 0), images)


def map_groups(
    function: Callable[..., Array], arrays: tuple[Array, ...], groups: int
) -> Shaped[Array, "n ..."]:
    """`function` of each group; its results, which have the images in front, in one array."""
    if groups == 1:
        return function(*arrays)
    results = lax.map(lambda index: function(*_group(arrays, groups, index)), jnp.arange(groups))
    return results.reshape(-1, *results.shape[2:])


def sum_groups(function: Callable[..., Array], arrays: tuple[Array, ...], groups: int) -> Array:
    """The sum of `function` over the groups, in float32 at least, in the dtype of `function`."""
    if groups == 1:
        return function(*arrays)
    one = jax.eval_shape(lambda: function(*_group(arrays, groups, 0)))

    def add(total: Array, index: Array) -> tuple[Array, None]:
        return total + function(*_group(arrays, groups, index)), None

    zeros = jnp.zeros(one.shape, accumulation_dtype(one))
    total, _ = lax.scan(add, zeros, jnp.arange(groups))
    return total.astype(one.dtype)


def _group(arrays: tuple[Array, ...], groups: int, index: Array | int) -> list[Array]:
    size = arrays[0].shape[0] // groups
    return [lax.dynamic_slice_in_dim(array, index * size, size) for array in arrays]
