"""Checksums that tell a damaged checkpoint: TensorStore does not notice a flipped byte."""

import json
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

PyTree = Any


def of_json(value: Any) -> int:
    """CRC-32 of a JSON value, whatever the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def of_arrays(tree: PyTree) -> int:
    """A 32-bit checksum of the bits of a tree's arrays, computed where they are.

    A sum modulo 2**32 of every word times an odd number of its place, so that any one changed
    word changes it; integer sums do not depend on their order, so neither does it depend on the
    devices. NumPy sums what is on the host: compiling the sum takes 0.9 s for ResNet-18.
    """
    leaves = jax.tree.leaves(tree)
    if all(map(_on_host, leaves)):
        return _of_host_arrays(jax.device_get(leaves))
    return int(jax.device_get(_of_device_arrays(leaves)))


def _on_host(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array):
        return True
    here = leaf.is_fully_addressable or leaf.is_fully_replicated
    return here and all(device.platform == "cpu" for device in leaf.devices())


def _of_host_arrays(leaves: Sequence[Any]) -> int:
    total = 0
    for place, leaf in enumerate(map(np.asarray, leaves)):
        words = leaf.ravel().view(_word(leaf.dtype)).astype(np.uint32, copy=False)
        odd = np.arange(1, 2 * words.size + 1, 2, dtype=np.uint32)
        total += (2 * place + 1) * int(np.sum(words * odd, dtype=np.uint32))
    return total % 2**32


def _word(dtype: np.dtype) -> np.dtype:
    """What an array's bits are read as: a number of its size, or several of 32 bits."""
    return np.dtype(f"uint{min(8 * dtype.itemsize, 32)}")


@jax.jit
def _of_device_arrays(leaves: Sequence[Array]) -> UInt32[Array, ""]:
    total = jnp.zeros((), jnp.uint32)
    for place, leaf in enumerate(leaves):
        bits = jax.lax.bitcast_convert_type(leaf, _word(leaf.dtype))
        words = bits.astype(jnp.uint32).ravel()
        odd = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        total += jnp.uint32(2 * place + 1) * jnp.sum(words * odd, dtype=jnp.uint32)
    return total
