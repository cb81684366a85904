"""The physical limit of a training step: the least time its arithmetic and traffic can take."""

import math
from collections.abc import Mapping

import jax.numpy as jnp

from benchmarks.timing.roof import Roof
from jaxres.ops.conv import Geometry

# Passes over every convolution's output for batch norm and ReLU when none is fused into the
# convolutions: forward two reads and a write, backward three reads and two writes.
NORM_PASSES = 8


def step_seconds(
    convolutions: Mapping[Geometry, int], roof: Roof, *, norm_passes: int = NORM_PASSES
) -> float:
    """The least time of a training step of one device, from its convolutions (one or more).

    For every convolution the forward pass, the gradient of its input (but not of the images) and
    the gradient of its kernel each take the longer of FLOP / peak and bytes / bandwidth, reading
    and writing every array once. Batch norm and ReLU add `norm_passes` over each convolution's
    output. Left out: the additions of residual blocks, pooling, the last layer, the loss and the
    optimiser. ResNet-50 at 224 px on a roof of 790 TFLOP/s and 4.3 TB/s is limited to 12,050
    images a second so, and to 10,900 with residuals and pooling.
    """
    first = next(iter(convolutions))
    total = -convolution_seconds(first, roof)
    for geometry, times in convolutions.items():
        _, _, outputs = bytes_of(geometry)
        normalise = roof.seconds(0.0, norm_passes * outputs)
        total += times * (3 * convolution_seconds(geometry, roof) + normalise)
    return total


def convolution_seconds(geometry: Geometry, roof: Roof) -> float:
    """The least time of a convolution; of each of its two gradients it is the same."""
    return roof.seconds(flop_of(geometry), sum(bytes_of(geometry)))


def flop_of(geometry: Geometry) -> int:
    """FLOP of a convolution, or of one of its gradients: 2 per multiply-add."""
    height, width = geometry.output_size
    pixels = geometry.batch * height * width
    reach = math.prod(geometry.kernel) * geometry.channels // geometry.groups
    return 2 * pixels * geometry.features * reach


def bytes_of(geometry: Geometry) -> tuple[int, int, int]:
    """Bytes of the images, the kernel and the outputs."""
    item = jnp.dtype(geometry.dtype).itemsize
    kernel = math.prod(geometry.kernel) * geometry.channels // geometry.groups * geometry.features
    images = geometry.batch * math.prod(geometry.size) * geometry.channels
    outputs = geometry.batch * math.prod(geometry.output_size) * geometry.features
    return item * images, item * kernel, item * outputs
