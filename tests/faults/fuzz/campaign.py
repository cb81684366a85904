"""Many inputs for one reader: counts of outcomes, and what went wrong kept in a folder."""

import dataclasses
import shutil
import warnings
from collections import Counter
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.faults.fuzz import outcome, trees
from tests.faults.fuzz.outcome import BAD, Outcome
from tests.faults.fuzz.reader import Opened, Reader

KEPT = 20  # inputs of bad outcomes


@dataclasses.dataclass
class Counts:
    """What a reader's inputs came to."""

    reader: str
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_mib: float = 0.0
    bad: list[str] = dataclasses.field(default_factory=list)  # where inputs are kept, and why

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.kinds.total()

    @property
    def unhandled(self) -> int:
        """How many of them had an outcome that must not be."""
        return sum(self.kinds[kind] for kind in BAD)

    def add(self, found: Outcome) -> None:
        """Count an outcome."""
        self.kinds[found.kind] += 1
        self.slowest_s = max(self.slowest_s, found.seconds)
        self.peak_mib = max(self.peak_mib, found.peak_mib)


def run(name: str, opened: Opened, *, inputs: int, seed: int, work: Path, keep: Path) -> Counts:
    """Try a reader on so many inputs drawn by the seed.

    Args:
        name: Of the reader.
        opened: Sets it up.
        inputs: How many; fewer if its strategy has no more.
        seed: Of hypothesis.
        work: A scratch folder; `work/input` holds the input that is being tried.
        keep: Where inputs with bad outcomes are copied to.
    """
    counts = Counts(name)
    source, output, errors = work / "input", work / "output", work / "errors"
    work.mkdir(parents=True, exist_ok=True)
    errors.touch()
    with opened(work / "scratch") as reader:

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=inputs,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],  # pyright: ignore[reportArgumentType]
        )
        @hypothesis.given(reader.trees)
        def trial(tree: trees.Tree) -> None:
            trees.write(tree, source)
            trees.write({}, output)
            found = _judged(reader, tree, source, output, errors)
            counts.add(found)
            if found.kind in BAD:
                _keep(counts, found, tree, keep / f"{name}-{counts.unhandled}")

        with outcome.standard_error_in(errors):
            trial()
    shutil.rmtree(work)
    return counts


def _judged(reader: Reader, tree: trees.Tree, source: Path, output: Path, errors: Path) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = outcome.judge(lambda: reader.read(source, output), output, errors)
    if found.kind == "accepted" and (reason := reader.wrong(tree, found.content)):
        return found._replace(kind="wrong", detail=reason)
    return found


def _keep(counts: Counts, found: Outcome, tree: trees.Tree, folder: Path) -> None:
    if len(counts.bad) < KEPT:
        trees.write(tree, folder / "input")
        (folder / "outcome.txt").write_text(f"{found.kind}\n{found.detail}\n", errors="replace")
        counts.bad.append(f"{folder}: {found.kind}: {found.detail.strip().splitlines()[-1:]}")
