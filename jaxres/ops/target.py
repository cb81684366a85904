"""The backend that traced programs are for, usually the one at hand, and how it is compiled for."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TypeVar

import jax
from jax import lax
from jaxtyping import Array

T = TypeVar("T")

_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


def backend() -> str:
    """Name of the backend ("cpu", "gpu", "tpu") whose rules choose how an operation is computed."""
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def target_backend(name: str) -> Iterator[None]:
    """Trace for another backend than the one at hand, to compile ahead of time for it."""
    token = _target.set(name)
    try:
        yield
    finally:
        _target.reset(token)


def materialise(arrays: T) -> T:
    """On CPU, have arrays (any tree of them) written once and read by all that follows.

    XLA merges element-wise operations into each of their readers. On CPU, where products, loops and
    reductions are readers that cannot be merged, that repeats the work for each: the gradient of
    ResNet-18's max pooling takes 58 ms of a step at 224 px, batch 16 and 20 ms with its parts
    written. Works in programs compiled with `compiler_options`; in others it changes nothing.
    """
    return lax.optimization_barrier(arrays) if backend() == "cpu" else arrays


def apart(images: Array) -> Array:
    """The images; on a GPU their gradient is written before another one is added to it.

    For the input of a bottleneck with a strided shortcut, of which three pixels in four have no
    gradient by way of the shortcut. XLA has the convolution that makes the other gradient add it,
    and so has it written out with its zeros first: 8 of a ResNet-50 step's 285 MB per image.
    """
    return _apart(images) if backend() == "gpu" else images


@jax.custom_vjp
def _apart(images: Array) -> Array:
    return images


def _apart_forward(images: Array) -> tuple[Array, None]:
    return images, None


def _apart_backward(saved: None, gradient: Array) -> tuple[Array]:
    return (lax.optimization_barrier(gradient),)


_apart.defvjp(_apart_forward, _apart_backward)


def compiler_options(*, deterministic: bool = False) -> dict[str, str | bool]:
    """Options of `jax.jit` for programs that hold these operations.

    XLA on CPU drops optimisation barriers before it merges operations, unless told not to. With
    `deterministic` XLA on GPU takes no algorithm that adds in any order, and chooses among the
    others by rules in place of a race, whose winner may be another one in the next process.
    """
    if backend() == "cpu":
        return {"xla_disable_hlo_passes": "cse_barrier_expander"}
    return {"xla_gpu_deterministic_ops": True} if deterministic and backend() == "gpu" else {}
