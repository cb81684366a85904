"""`jaxres evaluate`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from jaxres import recipe as recipes
from jaxres.config import Split
from jaxres.recipe import DEFAULTS, Settings, split_settings
from jaxres.screen import print_table, quiet_libraries


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate a run's checkpoint from the run directory alone; settings given here override it."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    split: Split = "test"
    """Which part of the data set."""
    json: bool = False
    """Print one JSON object and nothing else."""
    settings: Settings = DEFAULTS


def evaluate(words: Sequence[str]) -> int:
    """`jaxres evaluate`: metrics as tables or JSON."""
    own, flags = split_settings(words)
    args = recipes.parse(Evaluate, own, prog="jaxres evaluate")
    quiet_libraries()
    from jaxres.evaluation import run

    result = run.evaluate(args.run_dir, which=args.checkpoint, split=args.split, flags=flags)
    if args.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['dataset']} {result['split']}: accuracy {result['accuracy']:.4f}  "
        f"loss {result['loss']:.4f}  ({result['examples']} examples, "
        f"checkpoint of step {result['checkpoint']})\n"
    )
    columns = ("class", "precision", "recall", "f1", "support")
    print_table(columns, ([entry[key] for key in columns] for entry in result["per_class"]))
    print("\nconfusion (row: true class, column: predicted)")
    names = [entry["class"] for entry in result["per_class"]]
    rows = zip(names, result["confusion"], strict=True)
    print_table(("", *names), ([name, *row] for name, row in rows))
    return 0
