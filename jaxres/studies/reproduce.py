"""Running a study row by row, each training a process of its own that can be resumed."""

import contextlib
import dataclasses
import math
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jaxres.config import differing_keys, listed, recipe, to_dict, unflatten
from jaxres.report import record
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import refusing
from jaxres.runtime.screen import say
from jaxres.studies.results import Found, Results
from jaxres.studies.study import Row, Study

PROGRAM = (sys.executable, "-m", "jaxres")
# Signals, and what a command gets for them, on which a training saves its state.
PASSED_ON: dict[int, signal.Signals] = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,  # the terminal was closed
}
# What is drawn of a row's first run, for its page.
DRAWN = {
    "mistakes.png": ("mistakes",),
    "attention.png": ("attention", "--method", "layer_cam"),
}


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A study's profile, with where its runs and its results are kept."""

    study: Study
    runs: Path  # run directories: STUDY/PROFILE/ROW/seedN
    results: Path  # JSON file
    devices: int | None = None  # of each training, None: all
    deadline: float = math.inf  # by time.monotonic(): the training of this moment is stopped

    def run_dir(self, row: Row, seed: int) -> Path:
        """Where a row's run with a seed is."""
        return self.runs / self.study.name / self.study.profile / row.name / f"seed{seed}"

    def flags(self, row: Row, seed: int) -> list[str]:
        """The settings of a row's run on top of its recipe."""
        made = [*row.flags]
        if row.start:
            made += ["--model.init-from", str(self.run_dir(self.study.row(row.start), seed))]
        return [*made, "--train.seed", str(seed)]

    def words(self, row: Row, seed: int) -> list[str]:
        """The command of a row's run, after `jaxres`."""
        output = ["--output-dir", str(self.run_dir(row, seed))]
        devices = [] if self.devices is None else ["--train.devices", str(self.devices)]
        return ["train", str(row.recipe), *output, *self.flags(row, seed), *devices]

    def asked(self, only: str | None) -> tuple[Row, ...]:
        """The rows to run, each after those whose weights it starts from: all, or for `only` one.

        Raises:
            InputError: no row has that name.
        """
        return self.study.in_order() if only is None else self.study.with_starts(only)

    def run(
        self,
        *,
        only: str | None,
        seeds: int,
        keep: bool,
        images: bool = True,
        on_update: Callable[[Found], None],
    ) -> Found:
        """Make the runs that are not there, of all rows or one, for seeds 0 to `seeds` - 1.

        Gives what `results` holds: it is written whole after every run, and `on_update` called with
        it. A row that fails is noted in it and the others continue. At the deadline the training
        under way saves its state and no other begins. A run takes the place of the result that was
        there for its row and seed; all other results stay. With `keep` those results that still
        stand are not made again, though their run directories are gone. Of the first seed's runs
        `images` are drawn for the page.

        Raises:
            InputError: no row has the name `only`, or results cannot be read or written.
            KeyboardInterrupt: a run was interrupted; what is done is written.
        """
        rows = self.asked(only)
        results = self.opened(on_update)
        found = results.write()
        for seed in range(seeds):
            for row in self._to_make(rows, seed, found) if keep else rows:
                try:
                    made = self._made(row, seed, images=images and seed == 0)
                except TimeIsUp:
                    say("the time is up; the same command continues from here")
                    return found
                except (InputError, CommandFailed) as error:
                    command = shlex.join(["jaxres", *self.words(row, seed)])
                    problem = {"problem": str(error), "command": command}
                    found = results.write(row, seed, failed=problem)
                else:
                    found = results.write(row, seed, run=made)
        return found

    def _to_make(self, rows: Sequence[Row], seed: int, found: Found) -> list[Row]:
        """The rows without a result for the seed, and those whose weights they start from."""
        missing = [row for row in rows if str(seed) not in found["rows"][row.name]["runs"]]
        needed = {each.name for row in missing for each in self.study.with_starts(row.name)}
        return [row for row in rows if row.name in needed]

    def opened(self, on_update: Callable[[Found], None]) -> Results:
        """The results, to read and to write."""
        return Results(self.study, self.results, self._stands, on_update)

    def _made(self, row: Row, seed: int, *, images: bool) -> record.Record:
        """A row's run, made if it is not there.

        Raises:
            InputError, CommandFailed: it could not be made, or is that of other settings.
            TimeIsUp: the deadline came before its end.
        """
        run_dir = self.run_dir(row, seed)
        settings, start, end = (
            run_dir / name for name in ("config.yaml", record.START, "summary.json")
        )
        if settings.is_file():
            begun = to_dict(recipe.load_saved(start)) if start.is_file() else None
            changes = self._changes(row, seed, to_dict(recipe.load_saved(settings)), begun)
            if changes:
                raise InputError(
                    f"'{run_dir}' holds a run with other settings ({changes}): "
                    "remove it, or give another --runs"
                )
        if not end.is_file():
            run_command(self.words(row, seed), deadline=self.deadline)
            if not end.is_file():
                _require_time(self.deadline)
                raise CommandFailed("it was stopped before its end; the same command resumes it")
        if row.start and not start.is_file():
            first = self.run_dir(self.study.row(row.start), seed) / "config.yaml"
            with refusing(start):
                shutil.copyfile(first, start)
        if self.study.sweep:
            sweep(run_dir, self.study.sweep, deadline=self.deadline)
        if images:
            draw(run_dir, deadline=self.deadline)
        return record.read(run_dir)

    def _stands(self, row: Row, seed: int, run: record.Record) -> bool:
        """Whether a result is what the row would make today."""
        start = unflatten(run["start"]) if "start" in run else None
        try:
            return not self._changes(row, seed, unflatten(run["settings"]), start)
        except InputError:  # of the recipe: reported when the row is run
            return True

    def _changes(
        self, row: Row, seed: int, there: dict[str, Any], start: dict[str, Any] | None
    ) -> str:
        """What differs between a row's settings now and those of a run, and of where it started.

        Raises:
            InputError: there is no such recipe, or it is wrong.
        """
        wanted = to_dict(recipe.load(row.recipe, self.flags(row, seed)))
        if row.start is None:
            return listed(differing_keys(wanted, there))
        # The run that it starts from is the same in another folder of runs.
        for each in (wanted["model"], there["model"]):
            each["init_from"] = "/".join(Path(each["init_from"] or "none").parts[-2:])
        differing = differing_keys(wanted, there)
        if start is not None:
            first = self.study.row(row.start)
            begun = to_dict(recipe.load(first.recipe, self.flags(first, seed)))
            differing |= {
                f"{key} of {row.start}": values
                for key, values in differing_keys(begun, start).items()
                if key != "model.init_from"
            }
        return listed(differing)


def sweep(run_dir: Path, words: Sequence[str], *, deadline: float = math.inf) -> None:
    """Test a run's network with each of several values of a setting, unless that is there.

    Raises:
        CommandFailed: it failed.
        TimeIsUp: the deadline came before its end.
    """
    output = run_dir / record.SWEEP
    command = ["evaluate", str(run_dir), "--sweep", *words, "-o", str(output)]
    there = record.read_sweep(run_dir)
    if there is None or there["command"] != shlex.join(["jaxres", *command]):
        run_command(command, deadline=deadline)


def draw(run_dir: Path, *, deadline: float = math.inf) -> None:
    """Draw what the page of a run shows of its network, unless that is there; warn if it fails.

    Raises:
        TimeIsUp: the deadline came before its end.
    """
    for name, (what, *words) in DRAWN.items():
        if (run_dir / name).exists():
            continue
        try:
            show = ["show", what, str(run_dir), "-o", str(run_dir / name), *words]
            run_command(show, deadline=deadline)
        except CommandFailed as error:
            say(f"warning: no {name}: {error}")


class TimeIsUp(Exception):  # noqa: N818
    """The deadline has come."""


class CommandFailed(Exception):  # noqa: N818
    """A command ended with another status than 0."""


def run_command(words: Sequence[str], *, deadline: float = math.inf) -> None:
    """Run `jaxres WORDS` in a process of its own, whose lines come on standard error.

    At the deadline it gets SIGTERM, on which a training saves its state and ends with status 0.

    Raises:
        CommandFailed: its status is not 0; in the words of its last error.
        TimeIsUp: the same, after the deadline; or that has come, and nothing is run.
        KeyboardInterrupt: a signal of PASSED_ON came, and the command has ended.
    """
    _require_time(deadline)
    say("$ " + shlex.join(["jaxres", *words]))
    stopped: list[int] = []
    process: subprocess.Popen[str] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        if process is not None:
            process.send_signal(PASSED_ON[number])

    # What nohup has us ignore stays ignored.
    deaf = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    before = {each: signal.signal(each, pass_on) for each in PASSED_ON.keys() - deaf}
    problem = ""
    try:
        # In a session of its own a command gets a terminal's signals from here, and only once.
        with subprocess.Popen(
            [*PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            for number in stopped:  # while it was started
                process.send_signal(PASSED_ON[number])
            with _stopped_at(deadline, process):
                for line in process.stdout or ():
                    say(line.rstrip())
                    if line.startswith("error: "):
                        problem = line.removeprefix("error: ").strip()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        raise KeyboardInterrupt
    if process.returncode:
        _require_time(deadline)
        raise CommandFailed(problem or f"ended with status {process.returncode}")


def _require_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise TimeIsUp


@contextlib.contextmanager
def _stopped_at(deadline: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """Send SIGTERM to a process if the deadline comes within the block."""
    if deadline == math.inf:
        yield
        return
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), process.terminate)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
