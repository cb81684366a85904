"""Batches onto the devices, ahead of the step that takes them.

Not by Grain's `device_put`, which reads ahead in threads: a plan is made in less time than a
hand-over between threads takes, so the loop makes them itself while the devices work.
"""

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxres.data.composed import Batch


class Feed:
    """Iterator of (device batch, number of steps in it), kept up to `depth` batches ahead.

    `lengths` gives the number of steps in each batch to come: 1, or k steps stacked in front.
    `put` places a host batch on the devices; it must not block on their work. Batches are made by
    `fill`, to be called when the devices have got their work, or when there is none left to take.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        lengths: Iterable[int],
        put: Callable[[Batch, int], Any],
        *,
        depth: int,
    ):
        self._batches = batches
        self._lengths = iter(lengths)
        self._put = put
        self._depth = depth
        self._ready: collections.deque[tuple[Any, int]] = collections.deque()
        self._spans: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return self

    def __next__(self) -> tuple[Any, int]:
        if not self._ready:
            self.fill()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def fill(self) -> None:
        """Make batches up to `depth` ahead."""
        start = time.perf_counter()
        while len(self._ready) < self._depth and (steps := next(self._lengths, 0)):
            self._ready.append((self._put(self._take(steps), steps), steps))
        self._spans.append((start, time.perf_counter()))

    def spans(self) -> list[tuple[float, float]]:
        """Start and end of each `fill` since they were last asked for, by `time.perf_counter`."""
        spans, self._spans = self._spans, []
        return spans

    def _take(self, steps: int) -> Batch:
        if steps == 1:
            return next(self._batches)
        taken = [next(self._batches) for _ in range(steps)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *taken)
