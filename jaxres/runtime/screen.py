"""What people see on the screen: lines, tables, and the progress of long work."""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# Loggers of libraries that tell of their own affairs as warnings, beside absl's.
TALKATIVE = ("jax", "orbax", "tensorflow_datasets")
TOLD = ("_SignalingThread", "Handler Commit")  # of writes that failed; the run tells it once


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off this process's screen: for commands, not for callers."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    _silence_stragglers()


@functools.cache
def _silence_stragglers() -> None:
    """Keep reads and writes that are still under way when one has failed from printing tracebacks.

    Orbax closes its event loop at the first failure; the others then find it closed or fail too,
    some of them after the failure has been reported.
    """
    from absl import logging as absl_logging

    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        is_task = inspect.iscoroutine(unraisable.object)
        if not is_task and "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    absl_logging.get_absl_logger().addFilter(
        lambda record: not any(part in str(record.msg) for part in TOLD)
    )


def say(line: str, *, shown: bool = True) -> None:
    """A line on standard error, where such are shown at all."""
    if shown:
        print(line, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output: text to the left, numbers to the right."""

    def shown(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:.4f}"
        if isinstance(value, dict):
            return ", ".join(f"{key} {item:,}" for key, item in value.items())
        return f"{value:,}" if isinstance(value, int) else str(value)

    table = [list(row) for row in rows]
    cells = [list(columns), *([shown(value) for value in row] for row in table)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
    right = [bool(table) and isinstance(table[0][k], int | float) for k in range(len(columns))]
    for row in cells:
        parts = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())


def track(items: Iterable[T], total: int, what: str, shown: bool) -> Iterator[T]:
    """Pass the items on, showing how many of `total` have gone by."""
    if not shown:
        yield from items
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        # Without the redirections, which would put back a stale sys.stdout if the consumer stops
        # early and this generator is closed late.
        with Progress(console=console, redirect_stdout=False, redirect_stderr=False) as bar:
            yield from bar.track(items, total=total, description=what)
    else:
        for count, item in enumerate(items, start=1):
            yield item
            if count * 10 // total > (count - 1) * 10 // total:
                say(f"{what}: {count} of {total}")
