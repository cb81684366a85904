"""`jaxres report`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from jaxres.config import recipe as recipes
from jaxres.config.recipe import ShortO
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import quiet_libraries


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page of runs: curves, tables, confusion, settings."""

    run_dirs: Positional[tuple[Path, ...]]
    """Run directories of `jaxres train`."""
    output: Annotated[Path, ShortO] = Path("report.html")
    """HTML file to write."""


def report(words: Sequence[str]) -> int:
    """`jaxres report`."""
    args = recipes.parse(Report, words, prog="jaxres report")
    if not args.run_dirs:
        raise InputError("jaxres report needs RUN_DIR, one or several; given: none")
    quiet_libraries()
    from jaxres.report import page, record

    page.write_runs([record.read(run_dir) for run_dir in args.run_dirs], args.output)
    print(f"written: {args.output}")
    return 0
