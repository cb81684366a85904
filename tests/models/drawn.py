"""Weights and images drawn from their names and shapes: the same everywhere, nothing stored."""

import math
import zlib

import numpy as np

from jaxres.models.pure import Net, flatten

Weights = dict[str, np.ndarray]  # parameters and statistics by dotted path


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 values uniform in -1..1, from raw bits that NumPy keeps the same for ever."""
    size = math.prod(shape)
    generator = np.random.Philox(key=zlib.crc32(f"{name} {shape}".encode()))
    bits = generator.random_raw(-(-size // 2)).astype("<u8").view("<u4")[:size]
    return ((bits >> 8).astype(np.float32) * np.float32(2**-23) - 1).reshape(shape)


def weights(net: Net) -> Weights:
    """Weights of a net's shapes; none of them is what training starts from.

    Kernels have He's variance, scales and variances lie in 0.5..1.5, all others in -0.5..0.5.
    """
    shapes = flatten(net.params) | flatten(net.stats)
    return {path: _weight(path, leaf.shape) for path, leaf in shapes.items()}


def _weight(path: str, shape: tuple[int, ...]) -> np.ndarray:
    values = draw(path, shape)
    match path.rpartition(".")[2]:
        case "kernel":
            return values * np.float32(math.sqrt(6 / math.prod(shape[:-1])))
        case "scale" | "var":
            return 1 + values / 2
        case _:  # biases, means and whatever else
            return values / 2
