"""What the device can do at most, measured on it in the run that is compared with it."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.timing import measure

REPEATS = 7


class Roof(NamedTuple):
    """The fastest matrix product in TFLOP/s and the fastest copy in GB/s (read plus written)."""

    matmul_tflops: float
    copy_gbs: float

    def seconds(self, flop: float, bytes_moved: float) -> float:
        """The least time an operation can take: of arithmetic and traffic the longer one."""
        return max(flop / (self.matmul_tflops * 1e12), bytes_moved / (self.copy_gbs * 1e9))


@cache
def measured(dtype: str) -> Roof:
    """The roof of the first device: the best repeat of the best size."""
    small = jax.default_backend() == "cpu"
    products = (1024, 2048) if small else (4096, 8192, 16384)
    bytes_copied = 2**28 if small else 2**30
    return Roof(
        matmul_tflops=max(_matmul_tflops(size, dtype) for size in products),
        copy_gbs=_copy_gbs(bytes_copied // jnp.dtype(dtype).itemsize, dtype),
    )


def _matmul_tflops(size: int, dtype: str) -> float:
    left = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    calls = max(1, (4096 // size) ** 2)
    seconds = min(_best(partial(_chain, product, left, calls)))
    return 2 * size**3 * calls / seconds / 1e12


def _copy_gbs(size: int, dtype: str) -> float:
    """In place: fresh memory would be paid page by page (CPU: 6 GB/s instead of 55).

    On an accelerator many in a row: one alone is timed with its launch (H200: 2.5 TB/s).
    """
    values = [jnp.ones(size, dtype)]
    add = jax.jit(lambda values: values + jnp.ones((), values.dtype), donate_argnums=0)
    calls = 1 if jax.default_backend() == "cpu" else 32

    def copy() -> None:
        for _ in range(calls):
            values[0] = add(values[0])
        values[0].block_until_ready()

    return 2 * values[0].nbytes * calls / min(_best(copy)) / 1e9


def _chain(product, left: jax.Array, calls: int) -> None:
    results = [product(left, left) for _ in range(calls)]
    jax.block_until_ready(results)


def _best(call) -> list[float]:
    return measure.repeat(call, warmup=2, repeats=REPEATS)
