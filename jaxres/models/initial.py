"""Initial weights, drawn by NumPy: nothing is compiled, and every device starts from the same bits.

Drawn by JAX, every shape costs compiling a generator: 1.9 s for ResNet-18, 3.6 s for ResNet-50.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

Shape = tuple[int, ...]
Mode = Literal["fan_in", "fan_out"]
Distribution = Literal["normal", "uniform"]
Initializer = Callable[[PRNGKeyArray, Shape], Float[Array, "..."]]


def variance_scaling(scale: float, mode: Mode, distribution: Distribution) -> Initializer:
    """A drawing of mean 0 and variance scale / fan, as `jax.nn.initializers` has it.

    The fan of a kernel (..., inputs, outputs) is its receptive field times its inputs or outputs.
    Traced, the weights are drawn when the program runs, the same ones.
    """

    return partial(_draw, scale, mode, distribution)


def _draw(
    scale: float, mode: Mode, distribution: Distribution, key: PRNGKeyArray, shape: Shape
) -> Float[Array, "..."]:
    fan = math.prod(shape[:-2]) * shape[-2 if mode == "fan_in" else -1]
    values = partial(_values, distribution, math.sqrt(scale / fan), shape)
    bits = jax.random.key_data(key)
    if isinstance(bits, Tracer):
        drawn = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.pure_callback(lambda bits: values(np.asarray(bits)), drawn, bits)
    return jnp.asarray(values(np.asarray(bits)))


def _values(
    distribution: Distribution, deviation: float, shape: Shape, bits: UInt32[np.ndarray, "2"]
) -> Float[np.ndarray, "..."]:
    size = math.prod(shape)
    drawn = _normal(bits, size) if distribution == "normal" else _uniform(bits, size)
    return (drawn * np.float32(deviation)).reshape(shape)


def _fractions(bits: UInt32[np.ndarray, "2"], size: int) -> Float[np.ndarray, " size"]:
    """Uniform in (0, 1], 24 bits each, from the raw bits that NumPy keeps the same for ever."""
    words = np.random.Philox(key=bits.astype(np.uint64)).random_raw(-(-size // 2))
    halves = words.view(np.uint32)[:size]
    return ((halves >> 8).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)


def _uniform(bits: UInt32[np.ndarray, "2"], size: int) -> Float[np.ndarray, " size"]:
    """Uniform, of variance 1."""
    return (2 * _fractions(bits, size) - 1) * np.float32(math.sqrt(3))


def _normal(bits: UInt32[np.ndarray, "2"], size: int) -> Float[np.ndarray, " size"]:
    """Normal, of variance 1, by Box and Muller's transform (1958)."""
    half = -(-size // 2)
    radius, turn = np.split(_fractions(bits, 2 * half), 2)
    radius, angle = np.sqrt(-2 * np.log(radius)), np.float32(2 * math.pi) * turn
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
