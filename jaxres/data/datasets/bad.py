"""Images that cannot be used, told together."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

T = TypeVar("T")
Made = TypeVar("Made")
MOST_TOLD = 20


class Bad:
    """Gathers what is wrong with images, to refuse them all at once or to continue without them."""

    def __init__(self, *, skip: bool):
        self._skip = skip
        self._problems: list[str] = []

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note an InputError of the body instead of raising it."""
        try:
            yield
        except InputError as error:
            self.note(str(error))

    def note(self, problem: str) -> None:
        """Note what is wrong with an image."""
        self._problems.append(problem)

    def since(self, count: int) -> list[str]:
        """What was noted after the first `count` problems."""
        return self._problems[count:]

    @property
    def count(self) -> int:
        """How many problems were noted."""
        return len(self._problems)

    def usable(self, make: Callable[[T], Made], items: Iterable[T]) -> Iterator[Made]:
        """What `make` makes of each item that can be used."""
        for item in items:
            with self.noting():
                yield make(item)

    def finish(self) -> None:
        """Say what was left out.

        Raises:
            InputError: there is something, and it is not to be skipped.
        """
        if not self._problems:
            return
        count, told = len(self._problems), self._problems[:MOST_TOLD]
        more = f"; and {count - len(told)} more" if count > len(told) else ""
        listed = "; ".join(told) + more
        if not self._skip:
            raise InputError(
                f"{listed}: fix or remove the {count}, or leave them out with --skip-bad"
            )
        say(f"left out {count:,} images that cannot be used: {listed}")
