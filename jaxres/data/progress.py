"""Progress of long work, on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(line: str, shown: bool) -> None:
    """One line, where progress is shown at all."""
    if shown:
        print(line, file=sys.stderr, flush=True)


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
                say(f"{what}: {count} of {total}", shown)
