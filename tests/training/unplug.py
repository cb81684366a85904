"""A run that ends at a step, as one that is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest

from jaxres.training import loop

CALL = loop.TrainCalls.__call__


def step_of(state: Any) -> int:
    """The steps so far of a state on the devices, jitted or pmapped."""
    return int(np.ravel(jax.device_get(state.step))[0])


@contextmanager
def unplugged_at(step: int) -> Iterator[None]:
    """What trains in the block is expected to come to `step` steps, and ends there."""

    def failing(self: loop.TrainCalls, state: Any, *arguments: Any) -> Any:
        if step_of(state) == step:
            raise RuntimeError("pulled the plug")
        return CALL(self, state, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop.TrainCalls, "__call__", failing)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            yield
