"""A convolution's three passes, each compiled and timed alone."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import measure
from jaxres.ops import target
from jaxres.ops.conv import LOWERINGS, Geometry, choose, conv2d, force_lowering

PASSES = ("forward", "input gradient", "kernel gradient")
SAMPLE_S = 0.02  # least length of a sample: a call's dispatch is 5 us to 50 us
CHOSEN = "chosen"  # stands for the lowering that `choose` picks


class Timed(NamedTuple):
    """One pass under one lowering: seconds of a call in every sample."""

    seconds: list[float]
    calls_per_sample: int
    compile_s: float


def chosen(geometry: Geometry, which: str) -> str:
    """Name of the lowering that conv2d uses for a pass here."""
    return choose(geometry, target.backend())[PASSES.index(which)]


def applicable(geometry: Geometry, which: str, asked: Sequence[str]) -> list[str]:
    """The lowerings among those asked for that can express a convolution, without repetition."""
    names = [chosen(geometry, which) if name == CHOSEN else name for name in asked]
    return [name for name in dict.fromkeys(names) if LOWERINGS[name].applies(geometry)]


def measured(
    geometry: Geometry, which: str, lowerings: Sequence[str], *, repeats: int
) -> tuple[dict[str, Timed], list[str]]:
    """One pass under several lowerings in turn, and the lowerings that memory has no room for."""
    shapes = _shapes(geometry)
    operands = [_random(shapes[name], geometry.dtype) for name in OPERANDS[which]]
    calls: dict[str, Callable[[], Any]] = {}
    counts: dict[str, int] = {}
    compile_s: dict[str, float] = {}
    full = []
    for name in lowerings:
        try:
            sample, compile_s[name] = _sampler(geometry, which, name, operands)
            sample(1)
            counts[name] = _calls_of(sample)
        except Exception as error:
            if not measure.out_of_memory(error):
                raise
            full.append(name)
        else:
            calls[name] = partial(sample, counts[name])
    seconds = measure.interleave(calls, warmup=1, repeats=repeats)
    timed = {
        name: Timed([each / counts[name] for each in taken], counts[name], compile_s[name])
        for name, taken in seconds.items()
    }
    return timed, full


def _calls_of(sample: Callable[[int], None]) -> int:
    """How many calls last as long as a sample.

    Asked twice: a call alone pays for its dispatch and for waiting, which many share.
    """
    calls = 1
    for _ in range(2):
        calls = math.ceil(SAMPLE_S / (measure.seconds_of(partial(sample, calls)) / calls))
    return calls


def _sampler(
    geometry: Geometry, which: str, lowering: str, operands: Sequence[jax.Array]
) -> tuple[Callable[[int], None], float]:
    """A function that runs a pass so many times and blocks at the end; seconds to compile it.

    Each call writes over the result of the call before: fresh memory would be paid page by page on
    CPU (56 px, 64 to 256 channels, batch 16, 1x1: 25 ms instead of 9).
    """
    held = [jnp.zeros(_shapes(geometry)[RESULT[which]], geometry.dtype)]
    jitted = jax.jit(
        lambda over, *operands: one_pass(geometry, which, operands),
        donate_argnums=0,
        keep_unused=True,
        compiler_options=target.compiler_options(),
    )
    began = time.perf_counter()
    with force_lowering(lowering):
        compiled = jitted.lower(held[0], *operands).compile()
    seconds = time.perf_counter() - began

    def sample(calls: int) -> None:
        for _ in range(calls):
            held[0] = compiled(held[0], *operands)
        held[0].block_until_ready()

    return sample, seconds


OPERANDS = {
    "forward": ("images", "kernel"),
    "input gradient": ("kernel", "output"),
    "kernel gradient": ("images", "output"),
}
RESULT = {"forward": "output", "input gradient": "images", "kernel gradient": "kernel"}


def one_pass(geometry: Geometry, which: str, operands: Sequence[jax.Array]) -> jax.Array:
    """A pass, to be traced: its operands are those that OPERANDS names."""

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        options = {"stride": geometry.stride, "padding": geometry.padding}
        return conv2d(images, kernel, **options, groups=geometry.groups)

    if which == "forward":
        return convolve(*operands)
    shapes = _shapes(geometry)
    if which == "input gradient":
        kernel, gradient = operands
        # A convolution is linear in its images: the zeros are not read.
        zeros = jnp.zeros(shapes["images"], geometry.dtype)
        return jax.vjp(lambda images: convolve(images, kernel), zeros)[1](gradient)[0]
    images, gradient = operands
    zeros = jnp.zeros(shapes["kernel"], geometry.dtype)
    return jax.vjp(lambda kernel: convolve(images, kernel), zeros)[1](gradient)[0]


def _shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    channels, features = geometry.channels, geometry.features
    return {
        "images": (geometry.batch, *geometry.size, channels),
        "kernel": (*geometry.kernel, channels // geometry.groups, features),
        "output": (geometry.batch, *geometry.output_size, features),
    }


def _random(shape: tuple[int, ...], dtype: str) -> jax.Array:
    """Normal values, a million of them over and over: drawing all would take longer than timing."""
    tile = np.random.default_rng(0).standard_normal(2**20, np.float32).astype(dtype)
    return jnp.asarray(np.resize(tile, shape))
