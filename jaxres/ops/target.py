"""The backend that traced programs are for: usually the one at hand."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

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
