"""`jaxres predict`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from jaxres.config import recipe as recipes
from jaxres.config.recipe import ShortO
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import print_table, quiet_libraries, say


@dataclasses.dataclass(frozen=True)
class Predict:
    """Classify image files with a run's checkpoint, or write a contest submission."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`, or output of `jaxres import-weights`."""
    images: Positional[tuple[Path, ...]] = ()
    """Image files, or folders of them; they are resized as the recipe says."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    submission: Path | None = None
    """Array of images without labels, in place of files (see docs/predict.md)."""
    output: Annotated[Path | None, ShortO] = None
    """CSV file to write for --submission."""
    json: bool = False
    """Print one JSON object and nothing else."""


def predict(words: Sequence[str]) -> int:
    """`jaxres predict`: classes and probabilities as a table or JSON, or a CSV file."""
    args = recipes.parse(Predict, words, prog="jaxres predict")
    if bool(args.images) == (args.submission is not None):
        given = "both" if args.images else "neither"
        raise InputError(f"jaxres predict needs IMAGE files or --submission ARRAY; given: {given}")
    if (args.submission is None) != (args.output is None):
        raise InputError(
            "--submission ARRAY and -o FILE.csv belong together: give both, or neither"
        )
    if args.submission is not None and args.json:
        raise InputError(
            "--json is given with --submission, which writes CSV; allowed: one of them"
        )
    quiet_libraries()
    from jaxres.evaluation import predict as predicting

    options: dict[str, Any] = {"which": args.checkpoint, "shown": True}
    if args.submission is not None and args.output is not None:
        count = predicting.write_submission(args.run_dir, args.submission, args.output, **options)
        print(f"written: {args.output} ({count:,} images)")
        return 0
    found = predicting.predict(args.run_dir, args.images, **options)
    for problem in found.problems.values():
        say(f"error: {problem}")
    if args.json:
        result = {"predictions": found.predictions}
        if found.problems:
            result["problems"] = [
                {"file": str(file), "problem": why} for file, why in found.problems.items()
            ]
        print(json.dumps(result))
    else:
        columns = ("file", "class", "probability")
        print_table(columns, ([result[key] for key in columns] for result in found.predictions))
    return 2 if found.problems else 0
