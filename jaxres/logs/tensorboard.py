"""A run's metrics as TensorBoard's events."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from jaxres.logs.tracker import numbers_of

# Classes that protobuf makes as it is imported.
Event, SessionLog = event_pb2.Event, event_pb2.SessionLog  # pyright: ignore[reportAttributeAccessIssue]
Summary = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
FLUSH_S = 10  # it waits for the disk


class TensorBoard:
    """TensorBoard's event files, written at once.

    Not by tensorboardX's own writer, whose thread a full disk ends, and with it everyone who goes
    on writing.
    """

    def __init__(self, folder: Path, *, purge_step: int):
        """Write to a new file in `folder`; earlier files' events from `purge_step` on are void."""
        self.place = folder
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
            Summary.Value(tag=name, simple_value=value) for name, value in numbers_of(row).items()
        ]
        try:
            if self._file is None:
                self.place.mkdir(parents=True, exist_ok=True)
                self._count += 1  # names hold the second, in which there may be two
                suffix = f".{os.getpid()}.{self._count}"
                self._file = EventsWriter(str(self.place / "events"), suffix)
                begin = SessionLog(status=SessionLog.SessionStatus.START)
                self._write(Event(session_log=begin, step=self._purge_step))
            self._write(Event(summary=Summary(value=numbers), step=row["step"]))
            if time.monotonic() - self._flushed > FLUSH_S:
                self._file.flush()
                self._flushed = time.monotonic()
        except OSError:
            self._drop()
            raise

    def close(self, *, failed: bool) -> None:
        """Close the file."""
        del failed
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
