"""Metrics and time between two log rows."""

import time
from typing import Any

import jax
import numpy as np

from jaxres.data.feed import Feed
from jaxres.training.parallel import Parallel

LAST = ("learning_rate", "grad_norm", "update_norm")
AHEAD = 8  # calls on their way: the devices never wait, and a signal is heard after so many


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
        self.restart()

    def restart(self) -> None:
        """Start the clock anew, leaving out the time since it was last started."""
        self._pictures = 0
        self._waited = self._feed.wait_s
        self._started = time.perf_counter()

    def add(self, metrics: Any, *, steps: int) -> None:
        """The metrics of a call, still on the devices; waits for those of the AHEADth before."""
        self._metrics.append(metrics)
        self._pictures += steps * self._batch_size
        if len(self._metrics) > AHEAD:
            jax.block_until_ready(self._metrics[-1 - AHEAD])

    def add_untimed(self, metrics: Any) -> None:
        """The metrics of a call whose time does not count; waits for it and restarts the clock."""
        self._metrics.append(jax.block_until_ready(metrics))
        self.restart()

    def close(self) -> dict[str, float]:
        """Means of loss and accuracy, the last of LAST, and the pictures, seconds and waiting.

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
            "pictures": self._pictures,
            "seconds": time.perf_counter() - self._started,
            "wait_s": self._feed.wait_s - self._waited,
            "taken": float(taken.size),
            "skipped": float(skipped.sum()),
            "skipped_last": float(len(skipped) - 1 - taken[-1] if taken.size else len(skipped)),
        }
        self._metrics = []
        self.restart()
        return numbers
