"""Running a study row by row, each training a process of its own that can be gone on with."""

import dataclasses
import json
import re
import shlex
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jaxres import recipe
from jaxres.config import differing_keys, to_dict
from jaxres.errors import InputError
from jaxres.files import refusing, write_whole
from jaxres.report import record
from jaxres.screen import say
from jaxres.studies.study import Row, Study

PROGRAM = (sys.executable, "-m", "jaxres")
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
        return ["train", str(row.recipe), *output, *self.flags(row, seed)]

    def run(
        self,
        *,
        only: str | None,
        seeds: int,
        keep: bool,
        pictures: bool = True,
        told: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Make the runs that are not there, of all rows or one, for seeds 0 to `seeds` - 1.

        Gives what `results` holds: it is written whole after every run, and `told` called with it.
        A row that fails is noted in it and the others go on. Rows that are not asked for stay as
        they were; of those asked for, runs without a run directory are made again, unless `keep`.
        Of the first seed's runs `pictures` are drawn for the page.

        Raises:
            InputError: no row has the name `only`, or results cannot be read or written.
            KeyboardInterrupt: a run was interrupted; what is done is written.
        """
        rows = self.study.with_starts(only) if only else self.study.in_order()
        found = self.opened()
        for row in rows:
            entry = found["rows"][row.name]
            if not keep:
                entry["runs"] = {
                    seed: run for seed, run in entry["runs"].items() if self._stands(row, int(seed))
                }
            entry["failed"] = {}
            _sum_up(entry)
        told(found)
        for seed in range(seeds):
            for row in rows:
                entry = found["rows"][row.name]
                if keep and str(seed) in entry["runs"]:
                    continue
                try:
                    if not self._is_done(row, seed):
                        run_command(self.words(row, seed))
                    if self.study.sweep:
                        sweep(self.run_dir(row, seed), self.study.sweep)
                    if pictures and seed == 0:
                        draw(self.run_dir(row, seed))
                    entry["runs"][str(seed)] = record.read(self.run_dir(row, seed))
                except (InputError, CommandFailed) as error:
                    command = shlex.join(["jaxres", *self.words(row, seed)])
                    entry["failed"][str(seed)] = {"problem": str(error), "command": command}
                _sum_up(entry)
                self._write(found)
                told(found)
        return found

    def opened(self) -> dict[str, Any]:
        """The results there are, with a place for every row of the study.

        Raises:
            InputError: they are damaged.
        """
        study = self.study
        rows: dict[str, Any] = {}
        if self.results.exists():
            try:
                rows = json.loads(self.results.read_text(encoding="utf-8"))["rows"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"'{self.results}' is damaged ({error!r:.200})") from None
        return {
            "study": study.name,
            "profile": study.profile,
            "title": study.title,
            "question": study.question,
            "about": study.about,
            "command": f"jaxres reproduce {study.name} --profile {study.profile}",
            "rows": {
                row.name: {"runs": {}, "failed": {}, "accuracy": None, "loss": None}
                | rows.get(row.name, {})
                | {"title": row.title, "study": dict(row.study), "recipe": str(row.recipe)}
                for row in study.rows
            },
        }

    def _is_done(self, row: Row, seed: int) -> bool:
        """Whether a row's run has ended, with the settings that it would have now."""
        run_dir = self.run_dir(row, seed)
        if not (run_dir / "summary.json").is_file():
            return False
        wanted = recipe.load(row.recipe, self.flags(row, seed))
        there = recipe.load(run_dir / "config.yaml")
        return not differing_keys(to_dict(wanted), to_dict(there))

    def _stands(self, row: Row, seed: int) -> bool:
        """Whether a result is that of the run directory; where that is damaged it is not."""
        try:
            return self._is_done(row, seed)
        except InputError:
            return False

    def _write(self, found: dict[str, Any]) -> None:
        text = json.dumps(found, indent=1)
        # Rows of numbers on a line each.
        text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda each: " ".join(each[0].split()), text)
        with refusing(self.results):
            self.results.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.results, text + "\n")


def sweep(run_dir: Path, words: Sequence[str]) -> None:
    """Test a run's network with each of several values of a setting, unless that is there.

    Raises:
        CommandFailed: it failed.
    """
    output = run_dir / record.SWEEP
    command = ["evaluate", str(run_dir), "--sweep", *words, "-o", str(output)]
    there = record.read_sweep(run_dir)
    if there is None or there["command"] != shlex.join(["jaxres", *command]):
        run_command(command)


def draw(run_dir: Path) -> None:
    """Draw what the page of a run shows of its network, unless that is there; warn if it fails."""
    for name, (what, *words) in DRAWN.items():
        if (run_dir / name).exists():
            continue
        try:
            run_command(["show", what, str(run_dir), "-o", str(run_dir / name), *words])
        except CommandFailed as error:
            say(f"warning: no {name}: {error}")


class CommandFailed(Exception):  # noqa: N818
    """A command ended with another status than 0."""


def run_command(words: Sequence[str]) -> None:
    """Run `jaxres WORDS` in a process of its own, whose lines come on standard error.

    Raises:
        CommandFailed: its status is not 0; in the words of its last error.
        KeyboardInterrupt: SIGINT or SIGTERM came; it was passed on, and the command has ended.
    """
    say("$ " + shlex.join(["jaxres", *words]))
    stopped: list[int] = []
    # In a session of its own a command gets a terminal's SIGINT from here, and only once.
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def pass_on(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        process.send_signal(number)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGINT, signal.SIGTERM)}
    problem = ""
    try:
        with process:
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
        raise CommandFailed(problem or f"ended with status {process.returncode}")


def _sum_up(entry: dict[str, Any]) -> None:
    """Set mean and spread of a row's runs, None where there are none."""
    for key in ("accuracy", "loss"):
        values = [run["test"][key] for run in entry["runs"].values()]
        entry[key] = None
        if values:
            entry[key] = {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}
