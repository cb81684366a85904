"""Calls of the compiled training step."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxres.data.composed import Batch
from jaxres.runtime import compilation
from jaxres.training.setup import Setup
from jaxres.training.state import TrainState
from jaxres.training.transfer import Phase


class Called(NamedTuple):
    """What a call gives: state, metrics of its steps and, if it compiled, how."""

    state: TrainState
    metrics: dict[str, Any]
    compile_s: float | None = None  # seconds of compiling and of the steps
    compile_cache: str | None = None  # `hit`, `miss` or `off`


class TrainCalls:
    """The training step of a phase, compiled once for each number of steps in a call.

    With images that grow (`data.progressive`) once for each of their sides too.
    """

    def __init__(self, setup: Setup, phase: Phase):
        self._setup = setup
        self._step = setup.train_step(phase)
        self._compiled: dict[Any, Callable[..., tuple[TrainState, dict[str, Any]]]] = {}

    def __call__(self, state: TrainState, resident: Any, batch: Batch, steps: int) -> Called:
        """Dispatch `steps` steps, whose batches are stacked; the first of a length compiles.

        The state is donated. A call that compiles waits for its results.
        """
        program = steps, batch["image"].shape if "image" in batch else None
        if program in self._compiled:
            return Called(*self._compiled[program](state, resident, batch))
        began = time.perf_counter()
        self._compiled[program] = self._setup.strategy.compile(self._step, steps)
        with compilation.watch() as programs:
            state, metrics = self._compiled[program](state, resident, batch)
        jax.block_until_ready(metrics)
        seconds = time.perf_counter() - began
        return Called(state, metrics, seconds, compilation.outcome(programs))
