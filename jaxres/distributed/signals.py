"""Stopping at a step boundary when the system asks."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from jax.experimental import multihost_utils


class StopSignal:
    """While open, a first SIGTERM, SIGINT or SIGHUP is noted in `name`; a second acts as usual.

    SIGHUP, of a terminal that is closed, stays ignored where it is, as under `nohup`.

    With `several` processes JAX's preemption service takes SIGTERM, on whichever of them it comes,
    and they agree on the step after which to stop; the others are passed on to it.
    """

    def __init__(self, *, several: bool = False) -> None:
        self.name: str | None = None
        self._several = several
        self._calls = 0
        self._before: dict[int, Any] = {}

    def reached(self) -> bool:
        """Whether to stop here; to be asked once after every call of a step, on every process."""
        self._calls += 1
        if self._several and multihost_utils.reached_preemption_sync_point(self._calls):
            self.name = "a signal to one of the processes"
        return self.name is not None

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            taken = [] if self._several else [signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                taken.append(signal.SIGHUP)
            for number in (*taken, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.name = signal.Signals(number).name
