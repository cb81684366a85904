"""Metrics and time between two log rows."""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxres.data.feed import Feed
from jaxres.distributed.strategy import Parallel

LAST = ("learning_rate", "grad_norm", "update_norm")
AHEAD = 8  # calls on their way: the devices never wait, and a signal is heard after so many


class Input:
    """The host's time for the devices' batches, and that in which the devices waited for it."""

    def __init__(self) -> None:
        self._watch = ThreadPoolExecutor(1)
        self._ended: Future[float] | None = None
        self.restart()

    def restart(self) -> None:
        """Count from here."""
        self.host_s = self.wait_s = 0.0

    def dispatched(self, spans: Iterable[tuple[float, float]], results: Any) -> None:
        """A call that gives `results` is on its way; its batch was made in these `spans`.

        The devices waited from the end of the call before, if that has ended, to a span's end.
        """
        for start, end in spans:
            self.host_s += end - start
            if self._ended is not None and self._ended.done():
                self.wait_s += max(0.0, end - max(start, self._ended.result()))
        self._ended = self._watch.submit(_end_of, results)


def _end_of(results: Any) -> float:
    """The moment at which a call's results are there."""
    for leaf in jax.tree.leaves(results):
        leaf.block_until_ready()
    return time.perf_counter()


class Window:
    """Collects metrics on the devices and fetches them once, when it is closed.

    The clock runs from `restart` or the last `close`; steps added as untimed (the first call,
    which compiles) count for the metrics but not for the speed.
    """

    def __init__(self, feed: Feed, parallel: Parallel, batch_size: int):
        self._feed = feed
        self._parallel = parallel
        self._batch_size = batch_size
        self._metrics: list[Any] = []
        self._input = Input()
        self.restart()

    def restart(self) -> None:
        """Start the clock anew, leaving out the time since it was last started."""
        self._images = 0
        self._feed.spans()
        self._input.restart()
        self._started = time.perf_counter()

    def add(self, metrics: Any, *, steps: int) -> None:
        """The metrics of a call, still on the devices; waits for those of the AHEADth before."""
        self._metrics.append(metrics)
        self._images += steps * self._batch_size
        self._input.dispatched(self._feed.spans(), metrics)
        self._feed.fill()
        if len(self._metrics) > AHEAD:
            jax.block_until_ready(self._metrics[-1 - AHEAD])

    def add_untimed(self, metrics: Any) -> None:
        """The metrics of a call whose time does not count; waits for it and restarts the clock."""
        self._metrics.append(jax.block_until_ready(metrics))
        self.restart()

    def close(self) -> dict[str, float]:
        """Means of loss and accuracy, the last of LAST, and the images and seconds.

        Of these, `host_s` is the host's time for batches, and `wait_s` that of it in which the
        devices had nothing to do.

        Steps that were skipped do not go into the means: `taken` is the number of the others, and
        `skipped_last` that of the skipped ones after the last of them. Waits for the steps added.
        Without any, `{}`.
        """
        if not self._metrics:
            return {}
        rows = self._parallel.fetch(self._metrics)
        values = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
        skipped = values.pop("skipped", np.zeros(len(values["loss"]), bool))
        taken = np.flatnonzero(~skipped)
        if taken.size:
            values = {key: each[taken] for key, each in values.items()}
        numbers = {
            "loss": float(values["loss"].mean()),
            "accuracy": float(values["accuracy"].mean()),
            **{key: float(values[key][-1]) for key in LAST},
            "pictures": self._images,
            "seconds": time.perf_counter() - self._started,
            "host_s": self._input.host_s,
            "wait_s": self._input.wait_s,
            "taken": float(taken.size),
            "skipped": float(skipped.sum()),
            "skipped_last": float(len(skipped) - 1 - taken[-1] if taken.size else len(skipped)),
        }
        self._metrics = []
        self.restart()
        return numbers
