"""Batches onto the devices, ahead of the step that takes them."""

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxres.data.pictures import Batch
from jaxres.data.pipeline import TrainBatches


class Feed:
    """Iterator of (device batch, number of steps in it), kept `depth` batches ahead.

    `lengths` gives the number of steps in each batch to come: 1, or k steps stacked in front.
    `put` places a host batch on the devices; it must not block on their work.
    """

    def __init__(
        self,
        batches: TrainBatches,
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
        self.wait_s = 0.0  # time spent here instead of in the step, since the start

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return self

    def __next__(self) -> tuple[Any, int]:
        start = time.perf_counter()
        while len(self._ready) < self._depth and (steps := next(self._lengths, 0)):
            self._ready.append((self._put(self._take(steps), steps), steps))
        self.wait_s += time.perf_counter() - start
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def _take(self, steps: int) -> Batch:
        if steps == 1:
            return next(self._batches)
        taken = [next(self._batches) for _ in range(steps)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *taken)
