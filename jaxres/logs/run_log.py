"""What a run says and writes: progress bar or plain lines, metrics.jsonl, TensorBoard events."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from jaxres.checkpoint.progress import SCORE
from jaxres.logs.rows import keep_rows

# Classes that protobuf makes as it is imported.
Event, SessionLog = event_pb2.Event, event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
Summary = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
FLUSH_S = 10  # it waits for the disk


class Silence:
    """The log of a process whose run's first process writes: nothing."""

    def say(self, line: str) -> None:
        """See `RunLog.say`."""

    def row(self, row: dict[str, Any]) -> None:
        """See `RunLog.row`."""

    def advance(self, step: int) -> None:
        """See `RunLog.advance`."""

    def close(self) -> None:
        """See `RunLog.close`."""


class RunLog:
    """Writes the rows of a run and shows its progress on standard error."""

    def __init__(self, run_dir: Path, *, total_steps: int, first_step: int, evaluated: bool = True):
        """Open the files; rows of a killed run after `first_step` are removed; see `keep_rows`."""
        self._path = run_dir / "metrics.jsonl"
        keep_rows(self._path, first_step, evaluated=evaluated)
        self._pending = b""
        self._events = Events(run_dir / "tensorboard", purge_step=first_step + 1)
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
        """Add a row of metrics (with `step` and `split`) to the files and show it.

        In `metrics.jsonl` it has the moment of writing too, `unix_time_s`. What cannot be written,
        as on a full disk, is tried again with the next row.
        """
        self._pending += (json.dumps({**row, "unix_time_s": time.time()}) + "\n").encode()
        with self._warning(self._path):
            append_whole(self._path, self._pending)
            self._pending = b""
        with self._warning(self._events.folder):
            self._events.add(row)
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
    def _warning(self, path: Path) -> Iterator[None]:
        """Say once that something cannot be written, and continue."""
        try:
            yield
        except OSError as error:
            if str(path) not in self._said:
                self.say(f"warning: cannot write '{path}' ({error.strerror}); the run continues")
                self._said.add(str(path))

    def advance(self, step: int) -> None:
        """Move the progress bar to a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def close(self) -> None:
        """Stop the bar and close the files."""
        if self._bar is not None:
            self._bar.stop()
        with self._warning(self._path):
            append_whole(self._path, self._pending)
        with self._warning(self._events.folder):
            self._events.close()


class Events:
    """TensorBoard's event files, written at once.

    Not by tensorboardX's own writer, whose thread a full disk ends, and with it everyone who goes
    on writing.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        """Write to a new file in `folder`; earlier files' events from `purge_step` on are void."""
        self.folder = folder
        self._purge_step = purge_step
        self._file: EventsWriter | None = None
        self._count = 0
        self._flushed = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """The numbers of a row, as `SPLIT/KEY`.

        Raises:
            OSError: they cannot be written; the next row begins another file.
        """
        numbers = [
            Summary.Value(tag=f"{row['split']}/{key}", simple_value=value)
            for key, value in row.items()
            if isinstance(value, float)
        ]
        try:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._count += 1  # names hold the second, in which there may be two
                suffix = f".{os.getpid()}.{self._count}"
                self._file = EventsWriter(str(self.folder / "events"), suffix)
                begin = SessionLog(status=SessionLog.SessionStatus.START)
                self._write(Event(session_log=begin, step=self._purge_step))
            self._write(Event(summary=Summary(value=numbers), step=row["step"]))
            if time.monotonic() - self._flushed > FLUSH_S:
                self._file.flush()
                self._flushed = time.monotonic()
        except OSError:
            self._drop()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, event: Any) -> None:
        assert self._file is not None
        event.wall_time = time.time()
        self._file.write_event(event)

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None


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
