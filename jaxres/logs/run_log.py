"""What a run says and writes: progress bar or plain lines, metrics.jsonl, its trackers."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from jaxres.checkpoint.progress import SCORE
from jaxres.logs.rows import keep_rows
from jaxres.logs.tracker import Tracker
from jaxres.runtime.errors import os_reason


class NullLog:
    """The log of a process whose run's first process writes: nothing."""

    def say(self, line: str) -> None:
        """See `RunLog.say`."""

    def row(self, row: dict[str, Any]) -> None:
        """See `RunLog.row`."""

    def advance(self, step: int) -> None:
        """See `RunLog.advance`."""

    def close(self, *, failed: bool = False) -> None:
        """See `RunLog.close`."""


class RunLog:
    """Writes the rows of a run and shows its progress on standard error."""

    def __init__(
        self,
        run_dir: Path,
        trackers: Sequence[Tracker],
        *,
        total_steps: int,
        first_step: int,
        evaluated: bool = True,
    ):
        """Open the file; rows of a killed run after `first_step` are removed; see `keep_rows`."""
        self._path = run_dir / "metrics.jsonl"
        keep_rows(self._path, first_step, evaluated=evaluated)
        self._pending = b""
        self._trackers = trackers
        self._said: set[str] = set()
        self._console = rich.console.Console(stderr=True)
        self._total_steps = total_steps
        self._bar: rich.progress.Progress | None = None
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.fields[numbers]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "training", total=total_steps, completed=first_step, numbers="compiling"
            )
            self._bar.start()

    def say(self, line: str) -> None:
        """A line for the reader; a full disk behind standard error does not end the run."""
        with contextlib.suppress(OSError):
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def row(self, row: dict[str, Any]) -> None:
        """Add a row of metrics (with `step` and `split`) to the file, show it and pass it on.

        In `metrics.jsonl` it has the moment of writing too, `unix_time_s`. What cannot be written,
        as on a full disk, is tried again with the next row.
        """
        self._pending += (json.dumps({**row, "unix_time_s": time.time()}) + "\n").encode()
        with self._warning(self._path):
            append_whole(self._path, self._pending)
            self._pending = b""
        for tracker in self._trackers:
            with self._warning(tracker.place):
                tracker.add(row)
        shown = [f"epoch {row['epoch']:.2f}", f"step {row['step']}/{self._total_steps}"]
        numbers = f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}"
        if SCORE in row:
            numbers += f"  mAP {row[SCORE]:.4f}"
        if row.get("images_per_s"):
            numbers += f"  {row['images_per_s']:.0f} img/s"
        if self._bar is not None and row["split"] == "train":
            self._bar.update(
                self._task,
                completed=row["step"],
                description=f"epoch {row['epoch']:.2f}",
                numbers=numbers,
            )
            return
        self.say(f"{'  '.join(shown)}  {row['split']}  {numbers}")

    @contextlib.contextmanager
    def _warning(self, place: Path | str) -> Iterator[None]:
        """Say once that something cannot be written, and continue."""
        try:
            yield
        except OSError as error:
            if str(place) not in self._said:
                reason = os_reason(error)
                self.say(f"warning: cannot write '{place}' ({reason}); the run continues")
                self._said.add(str(place))

    def advance(self, step: int) -> None:
        """Move the progress bar to a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def close(self, *, failed: bool = False) -> None:
        """Stop the bar and close the files, of a run that ended as it should or `failed`."""
        if self._bar is not None:
            self._bar.stop()
        with self._warning(self._path):
            append_whole(self._path, self._pending)
        for tracker in self._trackers:
            with self._warning(tracker.place):
                tracker.close(failed=failed)


def append_whole(path: Path, data: bytes) -> None:
    """Add to a file all of `data` or, if that cannot be, nothing.

    Raises:
        OSError: it could not be written.
    """
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            written = file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(size)
            raise
