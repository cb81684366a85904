"""Checksums that tell a damaged checkpoint: TensorStore does not notice a flipped byte."""

import json
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

PyTree = Any


def of_json(value: Any) -> int:
    """CRC-32 of a JSON value, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def of_arrays(tree: PyTree) -> int:
    """A 32-bit checksum of the bits of a tree's arrays, computed on the devices that hold them.

    A sum modulo 2**32 of every word times an odd number of its place, so that any one changed
    word changes it; integer sums do not depend on their order, so neither does it depend on the
    devices.
    """
    return int(jax.device_get(_checksum(tree)))


@jax.jit
def _checksum(tree: PyTree) -> UInt32[Array, ""]:
    total = jnp.zeros((), jnp.uint32)
    for place, leaf in enumerate(jax.tree.leaves(tree)):
        unsigned = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).ravel()
        odd = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        total += jnp.uint32(2 * place + 1) * jnp.sum(words * odd, dtype=jnp.uint32)
    return total
