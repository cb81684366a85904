"""Work in processes of their own, which give back what they take: a device's memory, a compiler."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def call(function: Callable[P, R], *words: P.args, **named: P.kwargs) -> R:
    """`function(...)` in a new process, whose environment is this one's as it is now.

    Raises:
        BrokenProcessPool: the process died.
        Exception: whatever the function raises.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *words, **named).result()


def devices() -> tuple[str, int]:
    """Kind ("cpu", "gpu", "tpu") and number of JAX's devices; this process takes none of them."""
    return call(_devices)


def _devices() -> tuple[str, int]:
    return jax.default_backend(), jax.device_count()
