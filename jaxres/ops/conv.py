"""Convolution of NHWC images: the one place that decides how it is computed.

XLA's own convolution is the choice everywhere but on CPU, where several shapes fall off its fast
path. `choose` holds the rules, measured on two cores of an AMD EPYC with jax 0.10.2 in float32,
with AVX-512 where nothing else is said; the forward pass and both gradients choose on their own.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import chex
import jax
from jax import lax
from jaxtyping import Array, Float

from jaxres.ops import target
from jaxres.ops.geometry import Geometry, Padding, pads
from jaxres.ops.lowerings import LOWERINGS


class Choice(NamedTuple):
    """Names of the lowerings of a convolution and of its two gradients."""

    forward: str
    input_gradient: str
    kernel_gradient: str


def conv2d(
    images: Float[Array, "n h w ci"],
    kernel: Float[Array, "kh kw ci_group co"],
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | Padding | Literal["SAME"] = 0,
    groups: int = 1,
) -> Float[Array, "n oh ow co"]:
    """Convolve images (cross-correlation, as every deep learning library defines it).

    `padding` is zeros on every side, ((top, bottom), (left, right)), or "SAME" as TensorFlow
    defines it (output ceil(size / stride), the odd zero after). `ci_group` is channels / groups, so
    depthwise is groups = ci. Both arrays have one dtype, which the result keeps.

    Raises:
        ValueError: channels do not fit groups, or the kernel is larger than the padded image.
    """
    chex.assert_rank([images, kernel], 4)
    chex.assert_type(kernel, images.dtype)
    geometry = _geometry(images, kernel, stride, padding, groups)
    choice = _choice(geometry)
    for name in choice:
        if not LOWERINGS[name].applies(geometry):
            raise ValueError(f"lowering '{name}' cannot express {geometry}")
    if choice == Choice("xla", "xla", "xla"):
        return LOWERINGS["xla"].forward(images, kernel, geometry)
    return _convolve(*_vary_alike(images, kernel), geometry, choice)


def choose(geometry: Geometry, backend: str) -> Choice:
    """The fastest known lowerings. Times in the comments: forward / input / kernel gradient, ms."""
    if backend != "cpu":
        return Choice("xla", "xla", "xla")
    if geometry.pointwise:
        # 16 to 8 px, 64 to 128 channels, batch 64: xla 0.7 / 0.9 / 2.6, dot 0.4 / 0.4 / 0.6.
        return Choice("dot", "dot", "dot")
    if geometry.depthwise:
        # 3x3, 144 channels, 56 px, batch 16: xla 218 / 209 / 852, shifted 22 / 7 / 45.
        return Choice("shifted", "shifted", "shifted")
    if geometry.groups > 1:
        return Choice("xla", "xla", "xla")
    # Batch 16: 56 px, 64 channels: xla 39 / 38 / 45, winograd 16 / 16 / 16; 28 px, 128: xla
    # 19 / 19 / 22, winograd 14 / 13 / 11; 7 px, 512: xla 22 / 26 / 20, winograd 13 / 13 / 14.
    # Batch 64: 16 px, 64: xla 12 / 12 / 15, winograd 5.1 / 4.7 / 6.5; 4 px, 256: xla 7 / 7 / 8,
    # winograd 3.8 / 3.6 / 4; 2 px, 512: patches 7 / 12 / 7.6, winograd 4.5 / 4.3 / 4.9.
    if geometry.winograd and _winograd_pays(geometry):
        return Choice("winograd", "winograd", "winograd")
    forward = input_gradient = "xla"
    # 7x7 of stride 2, 3 to 64 channels: 224 px, batch 16: xla 75 ms (one thread), parts 27 to 46;
    # 64 px, batch 64: xla 18, parts 15.
    kernel_gradient = "parts" if geometry.channels <= 4 else "xla"
    if kernel_gradient == "xla" and not _has_avx512():
        kernel_gradient = _avx2_kernel_gradient(geometry)
    strided = geometry.stride != (1, 1)
    # The cliff: an image smaller than the kernel. 3x3 at 2 px, 512 channels, batch 64: xla
    # 530 / 532 / 6.7, patches 7 / 12 / 7.6; 7x7 at 6 px, 64 channels: xla 68 / 68 / 5, patches
    # 25 / 7 / 21.
    if _smaller(geometry.size, geometry.kernel):
        forward = "patches"
    # 4 to 2 px, 256 to 512 channels: xla 135, patches 3.6. Larger images of stride 2 gain 5 to
    # 20 % (56 px: 14.3 and 13.4; 28 px: 10.9 and 10.6; 14 px: 11.5 and 9.8).
    if _smaller(geometry.output_size, geometry.kernel) or strided:
        input_gradient = "patches"
    return Choice(forward, input_gradient, kernel_gradient)


def force_lowering(name: str) -> contextlib.AbstractContextManager[None]:
    """Use one lowering for every convolution traced inside, whatever the rules say.

    For tests, counting and comparisons. A function compiled before is not traced again, so it keeps
    its lowerings. "xla" and "patches" express every convolution; a convolution that the named
    lowering cannot express raises ValueError.

    Raises:
        ValueError: no lowering has this name.
    """
    return _in_place_of_rules(name, always=True)


def prefer_lowering(name: str) -> contextlib.AbstractContextManager[None]:
    """Use a lowering for every convolution traced inside that it can express; the rules elsewhere.

    For comparing whole steps: "space_to_depth" and "four_channels" are of use to a network's first
    convolution, on accelerators.

    Raises:
        ValueError: no lowering has this name.
    """
    return _in_place_of_rules(name, always=False)


@contextlib.contextmanager
def _in_place_of_rules(name: str, *, always: bool) -> Iterator[None]:
    if name not in LOWERINGS:
        raise ValueError(f"unknown lowering '{name}' (allowed: {', '.join(LOWERINGS)})")
    token = _asked.set((name, always))
    try:
        yield
    finally:
        _asked.reset(token)


_asked: contextvars.ContextVar[tuple[str, bool] | None] = contextvars.ContextVar(
    "lowering", default=None
)


def _choice(geometry: Geometry) -> Choice:
    if (asked := _asked.get()) is not None:
        name, always = asked
        if always or LOWERINGS[name].applies(geometry):
            return Choice(*[name] * 3)
    return choose(geometry, target.backend())


def _smaller(size: tuple[int, int], kernel: tuple[int, int]) -> bool:
    return any(side < extent for side, extent in zip(size, kernel, strict=True))


@functools.cache
def _has_avx512() -> bool:
    """Whether this processor is not known to be one of 32-byte vectors."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return " avx512f" in flags or " avx2" not in flags


def _avx2_kernel_gradient(geometry: Geometry) -> str:
    """With 32-byte vectors XLA's keeps to one thread for longer: the larger the maps, the worse.

    3x3 of stride 2 to 28 px, 64 to 128 channels, batch 16: xla 221 ms, patches 40; to 14 px, 128 to
    256: 51 and 27. To 16 px, 32 to 64, batch 128: xla 146, patches 53, parts 52. Stride 1, 32 px,
    16 channels: xla 299, parts 18. Smaller maps gain 10 to 40 %, and are left as they are.
    """
    if min(geometry.output_size) < 14:
        return "xla"
    few = geometry.channels <= 16 or math.prod(geometry.kernel) > 9
    return "parts" if few else "patches"


def _winograd_pays(geometry: Geometry) -> bool:
    """Enough tiles to repay transforming the kernel, and products large enough to be fast.

    At 1/8 tile per feature (4 px, 512 channels, batch 16) 5.3 / 5.6 / 5.0 ms against xla's
    8.2 / 12 / 8.4; at 1/32 (2 px) 1.8 / 3.7 / 2.5 against 1.8 / 1.6 / 1.9 of patches. At 32
    channels (16 px, batch 64) 2.2 / 1.8 / 3.1 against 2.9 / 2.9 / 4.0; at 16 (28 px) 5.5 against
    3.6.
    """
    height, width = geometry.output_size
    tiles = geometry.batch * -(-height // 2) * -(-width // 2)
    wide, narrow = (kind(geometry.channels, geometry.features) for kind in (max, min))
    return 8 * tiles >= wide and narrow >= 32


def _geometry(
    images: Array,
    kernel: Array,
    stride: int | tuple[int, int],
    padding: int | Padding | Literal["SAME"],
    groups: int,
) -> Geometry:
    n, height, width, channels = images.shape
    kernel_height, kernel_width, channels_per_group, features = kernel.shape
    size, extent = (height, width), (kernel_height, kernel_width)
    strides = (stride, stride) if isinstance(stride, int) else stride
    if channels != channels_per_group * groups or features % groups:
        raise ValueError(
            f"a kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels"
        )
    geometry = Geometry(
        batch=n,
        size=size,
        channels=channels,
        kernel=extent,
        features=features,
        stride=strides,
        padding=pads(padding, size=size, window=extent, stride=strides),
        groups=groups,
        dtype=images.dtype.name,
    )
    if min(geometry.output_size) < 1:
        raise ValueError(
            f"a kernel of {kernel_height}x{kernel_width} is larger than the padded image "
            f"({height}x{width}, padding {geometry.padding})"
        )
    return geometry


def _vary_alike(images: Array, kernel: Array) -> tuple[Array, Array]:
    """Inside shard_map, let both arrays vary over the same mesh axes.

    A custom gradient must have its argument's type; the cast's own gradient sums over devices.
    """
    over = [jax.typeof(array).manual_axis_type.varying for array in (images, kernel)]
    images, kernel = (
        lax.pcast(array, tuple(missing), to="varying") if missing else array
        for array, missing in ((images, over[1] - over[0]), (kernel, over[0] - over[1]))
    )
    return images, kernel


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: Array, kernel: Array, geometry: Geometry, choice: Choice) -> Array:
    return LOWERINGS[choice.forward].forward(images, kernel, geometry)


def _convolve_forward(
    images: Array, kernel: Array, geometry: Geometry, choice: Choice
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(images, kernel, geometry, choice), (images, kernel)


def _convolve_backward(
    geometry: Geometry, choice: Choice, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = saved
    to_input, to_kernel = LOWERINGS[choice.input_gradient], LOWERINGS[choice.kernel_gradient]
    if to_input.input_gradient is None:
        _, pull = jax.vjp(lambda images: to_input.forward(images, kernel, geometry), images)
        (input_gradient,) = pull(gradient)
    else:
        input_gradient = to_input.input_gradient(gradient, kernel, geometry)
    if to_kernel.kernel_gradient is None:
        _, pull = jax.vjp(lambda kernel: to_kernel.forward(images, kernel, geometry), kernel)
        (kernel_gradient,) = pull(gradient)
    else:
        kernel_gradient = to_kernel.kernel_gradient(images, gradient, geometry)
    return input_gradient, kernel_gradient


_convolve.defvjp(_convolve_forward, _convolve_backward)
