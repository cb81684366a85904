"""`jaxres evaluate`."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional

from jaxres.checkpoint.progress import SCORE
from jaxres.config import Split
from jaxres.config import recipe as recipes
from jaxres.config.recipe import DEFAULTS, Settings, ShortO, split_settings
from jaxres.runtime.files import refusing, require_writable, write_whole
from jaxres.runtime.screen import print_table, quiet_libraries


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate a run's checkpoint from the run directory alone; settings given here override it."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    split: Split = "test"
    """Split of the dataset."""
    sweep: tuple[str, ...] = ()
    """A data setting and values of it, e.g. `data.digit_side 8 16 32`: accuracy with each."""
    json: bool = False
    """Print one JSON object and nothing else."""
    output: Annotated[Path | None, ShortO] = None
    """File to write the JSON object to as well."""
    settings: Settings = DEFAULTS


def evaluate(words: Sequence[str]) -> int:
    """`jaxres evaluate`: metrics as tables or JSON, one evaluation or a sweep."""
    own, flags = split_settings(words)
    args = recipes.parse(Evaluate, own, prog="jaxres evaluate")
    if args.output is not None:
        require_writable(args.output)
    quiet_libraries()
    from jaxres.evaluation import run

    asked: dict[str, Any] = {"which": args.checkpoint, "split": args.split, "flags": flags}
    if args.sweep:
        result = run.sweep(args.run_dir, args.sweep, shown=True, **asked)
    else:
        result = run.evaluate(args.run_dir, **asked)
    result["command"] = shlex.join(["jaxres", "evaluate", *words])
    if args.output is not None:
        with refusing(args.output):
            write_whole(args.output, json.dumps(result) + "\n")
    if args.json:
        print(json.dumps(result))
    elif args.sweep:
        columns = ("value", *run.SWEPT)
        table = ([row[key] for key in columns] for row in result["results"])
        print_table((result["sweep"], *columns[1:]), table)
    else:
        _print(result)
    return 0


def _print(result: dict[str, Any]) -> None:
    """One evaluation as tables."""
    scored = f"mAP {result[SCORE]:.4f}  " if SCORE in result else ""
    print(
        f"{result['dataset']} {result['split']}: accuracy {result['accuracy']:.4f}  "
        f"loss {result['loss']:.4f}  {scored}({result['examples']} examples, "
        f"checkpoint of step {result['checkpoint']})\n"
    )
    columns = ("class", "precision", "recall", "f1", "support")
    if scored:
        columns = (*columns[:4], "average_precision", "support")
    print_table(columns, ([entry[key] for key in columns] for entry in result["per_class"]))
    print("\nconfusion (row: true class, column: predicted)")
    names = [entry["class"] for entry in result["per_class"]]
    rows = zip(names, result["confusion"], strict=True)
    print_table(("", *names), ([name, *row] for name, row in rows))
