"""What shows a run's metrics while it goes on, as TensorBoard does."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Tracker(Protocol):
    """Takes the rows of a run as they come."""

    @property
    def place(self) -> Path | str:
        """Where they go, for messages."""
        ...

    def add(self, row: dict[str, Any]) -> None:
        """Take a row of metrics, with `step` and `split`.

        Raises:
            OSError: it cannot be written; rows that follow may be.
        """
        ...

    def close(self, *, failed: bool) -> None:
        """Take note that the run has ended, as it should or `failed`.

        Raises:
            OSError: what was left cannot be written.
        """
        ...


def numbers_of(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row to be drawn over its step, as `SPLIT/KEY`."""
    return {
        f"{row['split']}/{key}": value for key, value in row.items() if isinstance(value, float)
    }
