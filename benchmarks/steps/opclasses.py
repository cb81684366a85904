"""Where a step's time goes: a trace of a few steps, by class of operation and by line of ours."""

import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from benchmarks.compiled.program import Operation, operations
from benchmarks.timing.synthetic import Training

STEPS = 5
TOP = 20  # operations and lines shown


class Event(NamedTuple):
    """An operation in a trace, in nanoseconds.

    On CPU a convolution or product hands its work to other threads and returns at `end`; until
    `background_end` it may still be at work.
    """

    name: str
    start: float
    end: float
    background_end: float


class Profile(NamedTuple):
    """Milliseconds per step of each operation, and of none (`idle`)."""

    by_operation: dict[str, float]
    operations: dict[str, Operation]
    idle: float

    def by_class(self) -> dict[str, float]:
        """Summed over the operations of each class, the longest first."""
        return self._by(lambda operation: operation.kind)

    def by_source(self) -> dict[str, float]:
        """Summed by class and line of ours, the longest first."""
        return self._by(lambda operation: f"{operation.kind}  {operation.source or '-'}")

    def _by(self, key: Callable[[Operation], str]) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for name, ms in self.by_operation.items():
            sums[key(self.operations[name])] += ms
        return _longest_first(sums)


def profile(training: Training, folder: Path, *, steps: int = STEPS) -> Profile:
    """Trace about `steps` steps into `folder` and take the trace apart.

    The time of each operation is the part of the step's wall-clock time in which it ran; where
    several run at once each has its share. So the sum, with `idle`, is the traced time.
    """
    calls = -(-steps // training.steps_per_call)
    training.run(training.steps_per_call)
    with jax.profiler.trace(str(folder)):
        training.run(calls * training.steps_per_call)
    newest = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    known = operations(training.compiled.as_text() or "")
    busy, idle = shares(_events(jax.profiler.ProfileData.from_file(str(newest)), known))
    per_step = 1e-6 / (calls * training.steps_per_call)
    return Profile(
        by_operation={name: ns * per_step for name, ns in _longest_first(busy).items()},
        operations={name: known.get(name) or of_kernel(name) for name in busy},
        idle=idle * per_step,
    )


def shares(events: Iterable[Event]) -> tuple[dict[str, float], float]:
    """Nanoseconds of each operation, and of none.

    Every moment belongs to the operations that run in it, in equal parts; if there is none, to the
    one that was last put in the background.
    """
    edges = []
    for event in events:
        edges += [(event.start, 0, event.name, 1), (event.end, 0, event.name, -1)]
        if event.background_end > event.end:
            edges += [(event.end, 1, event.name, 1), (event.background_end, 1, event.name, -1)]
    busy: dict[str, float] = defaultdict(float)
    idle, before = 0.0, None
    running: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for time, level, name, change in sorted(edges, key=lambda edge: edge[0]):
        passed = 0.0 if before is None else time - before
        now = list(running[0]) or list(running[1])[-1:]
        for each in now:
            busy[each] += passed / len(now)
        idle += 0.0 if now else passed
        before = time
        count = running[level].pop(name, 0) + change
        if count:
            running[level][name] = count
    return busy, idle


def show(profile: Profile, title: str) -> None:
    """Print three tables: classes, lines of ours, operations."""
    total = sum(profile.by_operation.values()) + profile.idle
    print(f"{title}: {total:.2f} ms per step while traced")
    _print("class", profile.by_class() | {"(no operation)": profile.idle}, total)
    _print("class and line", profile.by_source(), total)
    described = {
        name: "  ".join((operation.kind, name, *operation[1:4]))
        for name, operation in profile.operations.items()
    }
    times = {described[name]: ms for name, ms in profile.by_operation.items()}
    _print("operation, result, line", times, total)


def of_kernel(name: str) -> Operation:
    """A GPU's kernel that the program does not name, such as inside of a CUDA graph."""
    words = {
        "collective": ("nccl",),
        "convolution": ("conv", "cudnn", "dgrad", "wgrad", "fprop", "implicit"),
        "product": ("gemm", "nvjet", "cutlass", "cublas", "dot"),
        "pooling": ("select_and_scatter", "reduce_window", "pool"),
        "copy": ("memcpy", "copy", "transpose", "memset", "nchwtonhwc", "nhwctonchw"),
        "reduction": ("reduce",),
        "elementwise": ("fusion", "loop", "elementwise"),
    }
    lower = name.lower()
    found = (kind for kind, signs in words.items() if any(sign in lower for sign in signs))
    return Operation(next(found, "other"), "", "", "", container=False)


def _events(data: Any, known: Mapping[str, Operation]) -> Iterator[Event]:
    """The operations of the first device."""
    # Reading makes types of jaxlib's, with a warning: as an error (-W error) it aborts the process.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        found, ends = _read(data, known)
    for name, start, duration, producer in found:
        if name in known and known[name].container:
            continue
        end = start + duration
        yield Event(name, start, end, ends.get(producer, end) if producer is not None else end)


def _read(
    data: Any, known: Mapping[str, Operation]
) -> tuple[list[tuple[str, float, float, Any]], dict[Any, float]]:
    """Name, start, duration (ns) and producer of each operation; when a producer's work ended."""
    planes = {plane.name: plane for plane in data.planes}
    devices = sorted(name for name in planes if re.match(r"/device:(GPU|TPU)", name))
    plane = planes[devices[0]] if devices else planes["/host:CPU"]
    lines = list(plane.lines)
    if devices:
        # A GPU's kernels are in lines of its streams, a TPU's in one; other lines hold the same
        # time again (steps, modules), counters, or what tracing itself took.
        lines = [line for line in lines if line.name.startswith(("Stream #", "XLA Ops"))]
    found, ends = [], {}
    for event in (event for line in lines for event in line.events):
        stats = dict(event.stats)
        if event.name.startswith("end: "):
            ends[stats.get("_c")] = event.start_ns
        elif devices or ("hlo_op" in stats and stats.get("device_ordinal", 0) == 0):
            name = _name(event.name, stats, known)
            found.append((name, event.start_ns, event.duration_ns, stats.get("_p")))
    return found, ends


def _name(shown: str, stats: Mapping[str, Any], known: Mapping[str, Operation]) -> str:
    """The operation's name in the program, or the kernel's."""
    for given in (str(stats.get("hlo_op", "")), shown.partition(" ")[0].lstrip("%")):
        if given in known:
            return given
    return shown


def _longest_first(times: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def _print(heading: str, times: Mapping[str, float], total: float) -> None:
    table = Table(title_justify="left")
    for name in ("ms", "share"):
        table.add_column(name, justify="right")
    table.add_column(heading, no_wrap=True)
    for name, ms in list(times.items())[:TOP]:
        table.add_row(f"{ms:.3f}", f"{ms / total:.1%}", name)
    Console(width=160).print(table)
