"""A `jax.profiler` trace of a few steps."""

from pathlib import Path
from typing import Any

import jax

STEPS = 5


class StepProfiler:
    """Traces the steps after the first call, which compiles; without a folder it does nothing."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._first: int | None = None
        self._running = False

    def before(self, step: int) -> None:
        """Before the call at `step`: start the trace if the first call is over."""
        if self._folder is None:
            return
        if self._first is None:
            self._first = step
        elif not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running, self._first = True, step

    def after(self, step: int, metrics: Any) -> None:
        """After the call up to `step`: stop the trace once it holds enough steps."""
        if self._running and self._first is not None and step - self._first >= STEPS:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        """Stop the trace."""
        if self._running:
            jax.profiler.stop_trace()
            self._running, self._folder = False, None
