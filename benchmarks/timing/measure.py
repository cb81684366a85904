"""How every program measures: warm-up, repeats, pairs in turn, and a smaller batch if memory ends.

A call to be timed does its work whole: it blocks on its last result, once, at its end.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

MIN_REPEATS = 5


class Spread(NamedTuple):
    """A ratio over pairs of measurements."""

    median: float
    min: float
    max: float
    pairs: int


def seconds_of(call: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def repeat(call: Callable[[], Any], *, warmup: int, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls after `warmup` untimed ones.

    Raises:
        ValueError: fewer than 5 repeats, which say nothing of the spread.
    """
    return interleave({"": call}, warmup=warmup, repeats=repeats)[""]


def interleave(
    calls: Mapping[str, Callable[[], Any]], *, warmup: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn (A B A B): a disturbance meets all of them alike.

    Raises:
        ValueError: fewer than 5 repeats, which say nothing of the spread.
    """
    if repeats < MIN_REPEATS:
        raise ValueError(f"repeats is {repeats}; allowed: {MIN_REPEATS} or more")
    for call in calls.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(seconds_of(call))
    return seconds


def ratio(ours_s: Sequence[float], theirs_s: Sequence[float]) -> Spread:
    """How many times as fast as theirs ours was, pair by pair: above 1 ours is faster."""
    ratios = [theirs / ours for ours, theirs in zip(ours_s, theirs_s, strict=True)]
    return Spread(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at p50, p90 and p99."""
    points = np.percentile(np.asarray(seconds) * 1e3, [50, 90, 99])
    return dict(zip(("p50", "p90", "p99"), map(float, points), strict=True))


def with_smaller_batch(
    run: Callable[[int], Any], batch_size: int, *, unit: int = 1
) -> tuple[Any, int]:
    """`run(batch_size)`, or of half the batch, a quarter, ..., the first that fits in memory.

    Gives the result and the batch size it has. Batches stay multiples of `unit`, such as the number
    of devices. Errors other than exhausted memory pass through.
    """
    while True:
        try:
            return run(batch_size), batch_size
        except Exception as error:
            smaller = batch_size // 2 // unit * unit
            if not out_of_memory(error) or smaller < 1:
                raise
        # Outside of the handler: the traceback holds the arrays that did not fit.
        gc.collect()
        batch_size = smaller


def out_of_memory(error: Exception) -> bool:
    """Whether JAX, torch or NumPy says that memory is exhausted."""
    told = f"{type(error).__name__}: {error}"
    return isinstance(error, MemoryError) or any(
        sign in told for sign in ("RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory")
    )


def peak_memory_mib(compiled: jax.stages.Compiled | None = None) -> float | None:
    """The most memory in use so far on the first device.

    Devices that do not count (CPU) have the compiled program's own figure: arguments, outputs that
    do not reuse them, and temporaries.
    """
    counted = jax.local_devices()[0].memory_stats()
    if counted and "peak_bytes_in_use" in counted:
        return counted["peak_bytes_in_use"] / 2**20
    analysis = compiled.memory_analysis() if compiled is not None else None
    if analysis is None:
        return None
    fresh = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    total = analysis.argument_size_in_bytes + fresh + analysis.temp_size_in_bytes
    return total / 2**20
