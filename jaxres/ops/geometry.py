"""What is static about a convolution or a pooling, and which sizes follow from it."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Padding = tuple[tuple[int, int], tuple[int, int]]


def accumulation_dtype(array: Array | jax.ShapeDtypeStruct) -> jnp.dtype:
    """The dtype of sums over an array's values: float32 at least."""
    return jnp.promote_types(array.dtype, jnp.float32)


def pads(
    padding: int | Padding | Literal["SAME"],
    *,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
) -> Padding:
    """Pixels around images: ((top, bottom), (left, right)).

    `padding` is one number for every side, the pixels themselves, or "SAME" as TensorFlow defines
    it (output ceil(size / stride), the odd pixel after).
    """
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    if padding != "SAME":
        return padding
    (top, bottom), (left, right) = lax.padtype_to_pads(size, window, stride, "SAME")
    return (top, bottom), (left, right)


class Geometry(NamedTuple):
    """All that is static about a convolution: sizes, stride, padding, groups and dtype."""

    batch: int
    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    features: int
    stride: tuple[int, int]
    padding: Padding
    groups: int
    dtype: str

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = (
            (size + sum(pads) - extent) // stride + 1
            for size, pads, extent, stride in zip(
                self.size, self.padding, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    @property
    def pointwise(self) -> bool:
        """A product of pixels by a matrix, nothing else."""
        return self.kernel == (1, 1) and self.padding == ((0, 0), (0, 0)) and self.groups == 1

    @property
    def depthwise(self) -> bool:
        """Each output channel reads one input channel."""
        return self.groups == self.channels > 1

    @property
    def winograd(self) -> bool:
        """A 3x3 convolution of stride 1 in a dtype with precision to spare."""
        shape_fits = self.kernel == (3, 3) and self.stride == (1, 1) and self.groups == 1
        return shape_fits and self.dtype in ("float32", "float64") and max(self._overhang) <= 2

    @property
    def _overhang(self) -> tuple[int, ...]:
        return *self.padding[0], *self.padding[1]
