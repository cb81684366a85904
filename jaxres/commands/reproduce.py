"""`jaxres reproduce`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from jaxres import recipe as recipes
from jaxres.errors import InputError
from jaxres.screen import print_table, quiet_libraries, say
from jaxres.studies.study import Profile


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Run a published study's recipes, then write its results and its page."""

    study: Positional[str]
    """Name of a file in studies/, as `s1`."""
    profile: Profile = "mini"
    """`full` is the study's own size, for an accelerator; `mini` is for two CPU cores."""
    only: str | None = None
    """One row of the study's table (with the rows whose weights it starts from)."""
    seeds: int = 1
    """Runs of every row, with train.seed 0, 1, ..."""
    runs: Path = Path("runs")
    """Folder of run directories; runs that are there are gone on with."""
    results: Path = Path("results")
    """Folder for STUDY/PROFILE.json and STUDY/PROFILE.html."""
    keep_results: bool = False
    """Take runs that the results hold already for done, without their run directories."""
    pages_only: bool = False
    """Run nothing; write the pages again from the results that are there."""
    no_pictures: bool = False
    """Leave mistakes and attention maps off the page: for data that must not be passed on."""


def reproduce(words: Sequence[str]) -> int:
    """`jaxres reproduce`: status 1 if a row failed."""
    args = recipes.parse(Reproduce, words, prog="jaxres reproduce")
    if args.seeds < 1:
        raise InputError(f"--seeds is {args.seeds}; allowed: 1 or more")
    quiet_libraries()
    from jaxres.report import overview, page
    from jaxres.studies import study
    from jaxres.studies.reproduce import Reproduction

    chosen = study.read(args.study, args.profile)
    results = args.results / args.study / f"{args.profile}.json"
    made = Reproduction(chosen, args.runs, results)

    def told(found: dict[str, Any]) -> None:
        page.write_study(found, results.with_suffix(".html"), pictures=not args.no_pictures)
        overview.write(args.results)
        say(where_rows_stand(found))

    if args.pages_only:
        found = made.opened()
        told(found)
    else:
        found = made.run(
            only=args.only,
            seeds=args.seeds,
            keep=args.keep_results,
            pictures=not args.no_pictures,
            told=told,
        )
    columns = ("system", "accuracy", "min", "max", "seeds", "study")
    print_table(columns, [_cells(row) for row in found["rows"].values()])
    print(f"results: {results}\npage: {results.with_suffix('.html')}")
    print(f"all studies: {args.results / overview.NAME}")
    return 1 if any(row["failed"] for row in found["rows"].values()) else 0


def where_rows_stand(found: dict[str, Any]) -> str:
    """A line on where each row stands."""
    told = []
    for name, row in found["rows"].items():
        mean = f" {row['accuracy']['mean']:.4f}" if row["accuracy"] else ""
        state = f"{len(row['runs'])} done{mean}" if row["runs"] else "not run"
        told.append(f"{name}: {'failed' if row['failed'] else state}")
    return "; ".join(told)


def _cells(row: dict[str, Any]) -> list[Any]:
    ours = row["accuracy"] or {"mean": "failed" if row["failed"] else "not run"}
    return [
        row["title"],
        *(ours.get(key, "") for key in ("mean", "min", "max")),
        len(row["runs"]),
        row["study"].get("accuracy", ""),
    ]
