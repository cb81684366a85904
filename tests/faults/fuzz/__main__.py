"""`python -m tests.faults.fuzz [--inputs N] [--seed S] [--only READER] [--json FILE]`.

Prints a table of outcomes by reader; status 1 if any is unhandled, whose inputs are kept.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.faults.fuzz.process import Task, environment, in_a_process

COLUMNS = ("reader", "inputs", "accepted", "refused", "unhandled", "slowest", "peak memory")


def main() -> int:
    """Run the readers, each in a process of its own, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--only", default=None, help="one reader, for all inputs")
    parser.add_argument("--json", type=Path, default=None, help="write the table here")
    parser.add_argument("--keep", type=Path, default=None, help="where failing inputs are kept")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    keep = given.keep or Path(tempfile.mkdtemp(prefix="jaxres-fuzz-"))
    environment()
    from benchmarks.timing.rows import made_by
    from tests.faults.fuzz.readers import READERS

    if given.only and given.only not in READERS:
        parser.error(f"--only is {given.only}; allowed: {', '.join(READERS)}")
    chosen = {given.only: READERS[given.only]} if given.only else READERS
    print(f"seed {seed}", flush=True)
    shares = sum(entry.share for entry in chosen.values())
    rows = []
    print_row(COLUMNS)
    with tempfile.TemporaryDirectory(prefix="jaxres-fuzz-work-") as work:
        for name, entry in chosen.items():
            inputs = -(-given.inputs * entry.share // shares)
            row = in_a_process(Task(name, inputs, seed, Path(work, name), keep))
            rows.append(row)
            print_row(cells(row))
            for line in row["bad"]:
                print(f"    {line}", flush=True)
    total = {key: sum(row[key] for row in rows) for key in ("inputs", "accepted", "refused")}
    unhandled = sum(row["unhandled"] for row in rows)
    longest = {key: max(row[key] for row in rows) for key in ("slowest_s", "peak_mib")}
    print_row(cells({"reader": "all", **total, "unhandled": unhandled, **longest}))
    if given.json:
        found = {**made_by(), "seed": seed, "rows": rows}
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    if unhandled:
        print(f"{unhandled} unhandled; inputs are kept in {keep}")
        return 1
    if given.keep is None:
        keep.rmdir()
    return 0


def cells(row: dict) -> tuple[str, ...]:
    """A row as text."""
    numbers = [f"{row[key]:,}" for key in ("inputs", "accepted", "refused", "unhandled")]
    return (row["reader"], *numbers, f"{row['slowest_s']:.2f} s", f"{row['peak_mib']:.0f} MiB")


def print_row(row: tuple[str, ...]) -> None:
    """A line of the table."""
    first, *others = row
    print(f"{first:16}" + "".join(f"{cell:>13}" for cell in others), flush=True)


if __name__ == "__main__":
    sys.exit(main())
