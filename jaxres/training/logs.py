"""What a run says and writes: progress bar or plain lines, metrics.jsonl, TensorBoard events."""

import json
import time
from pathlib import Path
from typing import Any

import rich.console
import rich.progress
import tensorboardX

from jaxres.training.rundir import keep_rows


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

    def __init__(self, run_dir: Path, *, total_steps: int, first_step: int):
        """Open the files; rows of steps after `first_step`, from a killed run, are removed."""
        self._path = run_dir / "metrics.jsonl"
        keep_rows(self._path, first_step)
        self._file = self._path.open("a", encoding="utf-8")
        events = str(run_dir / "tensorboard")
        self._events = tensorboardX.SummaryWriter(events, purge_step=first_step + 1)
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
        """A line for the reader."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def row(self, row: dict[str, Any]) -> None:
        """Add a row of metrics (with `step` and `split`) to the files and show it.

        In `metrics.jsonl` it has the moment of writing too, `unix_time_s`.
        """
        self._file.write(json.dumps({**row, "unix_time_s": time.time()}) + "\n")
        self._file.flush()
        for key, value in row.items():
            if isinstance(value, float):
                self._events.add_scalar(f"{row['split']}/{key}", value, row["step"])
        shown = [f"epoch {row['epoch']:.2f}", f"step {row['step']}/{self._total_steps}"]
        numbers = f"loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}"
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

    def advance(self, step: int) -> None:
        """Move the progress bar to a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def close(self) -> None:
        """Stop the bar and close the files."""
        if self._bar is not None:
            self._bar.stop()
        self._file.close()
        self._events.close()
