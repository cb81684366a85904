"""`jaxres reproduce`."""

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from jaxres.config import recipe as recipes
from jaxres.report import standing
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import print_table, quiet_libraries, say
from jaxres.studies.study import Profile, Study


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Run a published study's recipes, then write its results and its page."""

    study: Positional[str]
    """Name of a file in studies/, e.g. `s1`."""
    profile: Profile = "mini"
    """`full` is the study's own size, for an accelerator; `mini` is for two CPU cores."""
    only: str | None = None
    """One row of the study's table (with the rows whose weights it starts from)."""
    seeds: int = 1
    """Runs of every row, with train.seed 0, 1, ..."""
    budget_minutes: float | None = None
    """Stop after so many minutes: the training under way saves its state, and the same command
    continues from there. Rows that the study names as `first` run before the others."""
    devices: int | None = None
    """Devices of each training; default: all. A row's batch has to divide over them."""
    runs: Path = Path("runs")
    """Folder of run directories; runs found there are resumed."""
    results: Path = Path("results")
    """Folder for STUDY/PROFILE.json and STUDY/PROFILE.html."""
    keep_results: bool = False
    """Count runs already in the results as done, even without their run directories."""
    rehearse: bool = False
    """Run a few steps of every row in a temporary folder and say which rows would fail, and why.
    One seed is enough for that, and no results are read or written."""
    pages_only: bool = False
    """Run nothing; write the pages again from the results that are there."""
    no_pictures: bool = False
    """Leave mistakes and attention maps off the page: for data that must not be passed on."""


def reproduce(words: Sequence[str]) -> int:
    """`jaxres reproduce`: status 1 if a row failed."""
    args = recipes.parse(Reproduce, words, prog="jaxres reproduce")
    if args.seeds < 1:
        raise InputError(f"--seeds is {args.seeds}; allowed: 1 or more")
    if args.devices is not None and args.devices < 1:
        raise InputError(f"--devices is {args.devices}; allowed: 1 or more")
    if args.budget_minutes is not None and not 0 < args.budget_minutes < math.inf:
        raise InputError(f"--budget-minutes is {args.budget_minutes}; allowed: above 0")
    if args.rehearse and (args.pages_only or args.keep_results):
        other = "--pages-only" if args.pages_only else "--keep-results"
        raise InputError(f"{other} is given with --rehearse; allowed: one of them")
    deadline = time.monotonic() + 60 * (args.budget_minutes or math.inf)
    quiet_libraries()
    from jaxres.report import page
    from jaxres.studies import overview, study
    from jaxres.studies.reproduce import Reproduction

    chosen = study.read(args.study, args.profile)
    if args.rehearse:
        return _rehearse(args, chosen, deadline)
    results = args.results / args.study / f"{args.profile}.json"
    # A relative path is the same in the settings of runs that were begun with an absolute one.
    runs = Path(os.path.relpath(args.runs)) if args.runs.is_relative_to(Path.cwd()) else args.runs
    made = Reproduction(chosen, runs, results, args.devices, deadline)
    asked = made.asked(args.only)

    def on_update(found: dict[str, Any]) -> None:
        page.write_study(found, results.with_suffix(".html"), images=not args.no_pictures)
        overview.write(args.results)
        rows = found["rows"].items()
        say("; ".join(f"{name}: {standing.standing(row)}" for name, row in rows))

    if args.pages_only:
        if not results.exists():
            raise InputError(f"there are no results at '{results}' to write pages of")
        found = made.opened(on_update).write()
    else:
        found = made.run(
            only=args.only,
            seeds=args.seeds,
            keep=args.keep_results,
            images=not args.no_pictures,
            on_update=on_update,
        )
    columns = ("system", "accuracy", "min", "max", "seeds", "study")
    print_table(columns, [_cells(row) for row in found["rows"].values()])
    print(f"results: {results}\npage: {results.with_suffix('.html')}")
    print(f"all studies: {args.results / overview.NAME}")
    if args.pages_only:
        return 0
    _report_others(found)
    failed = {seed for row in asked for seed in found["rows"][row.name]["failed"]}
    return 1 if failed & set(map(str, range(args.seeds))) else 0


def _rehearse(args: Reproduce, chosen: Study, deadline: float) -> int:
    """Status 1 if a row would fail."""
    from jaxres.studies.rehearsal import rehearse

    problems = rehearse(chosen, only=args.only, devices=args.devices, deadline=deadline)
    rows = [(chosen.row(name).title, problem or "runs") for name, problem in problems.items()]
    print_table(("system", "rehearsal"), rows)
    return 1 if any(problems.values()) else 0


def _cells(row: dict[str, Any]) -> list[Any]:
    """A line of the table, in numbers where it has them."""
    ours = row["accuracy"] or {"mean": standing.mean(row)}
    return [
        row["title"],
        *(ours.get(key, "") for key in ("mean", "min", "max")),
        standing.seeds(row) if row["failed"] else len(row["runs"]),
        row["study"].get("accuracy", standing.theirs(row)),
    ]


def _report_others(found: dict[str, Any]) -> None:
    """Say which numbers of the table this machine did not make, or leaves out."""
    runs = [run for row in found["rows"].values() for run in row["runs"].values()]
    others = sum(not Path(run["run_dir"]).exists() for run in runs)
    if others:
        say(
            f"{others} of {len(runs)} runs are earlier results without a run "
            "directory here; for a table of your own runs alone give another --results"
        )
    for name, row in found["rows"].items():
        if "outdated" in row:
            seeds = ", ".join(row["outdated"])
            outdated = f"results of other settings than the recipe has now (seed {seeds})"
            say(f"{name}: {outdated} are not counted")
