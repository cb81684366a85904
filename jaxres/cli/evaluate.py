"""`jaxres evaluate`."""

import dataclasses
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from jaxres.checkpoint.progress import SCORE
from jaxres.config import Split
from jaxres.config import recipe as recipes
from jaxres.config.recipe import DEFAULTS, Settings, ShortO, split_settings
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import refusing, require_writable, write_whole
from jaxres.runtime.screen import print_table, quiet_libraries, track

# What the table of several checkpoints tells.
COMPARED = (
    "run_dir",
    "checkpoint",
    "accuracy",
    SCORE,
    "top5_accuracy",
    "calibration_error",
    "loss",
    "examples",
)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate checkpoints from run directories alone; settings given here override theirs."""

    run_dir: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN_DIR [RUN_DIR ...]")]
    """Run directory of `jaxres train`, or several."""
    checkpoint: str = "best"
    """`best`, `last`, the number of a step, or `all`."""
    split: Split = "test"
    """Split of the dataset."""
    sweep: tuple[str, ...] = ()
    """A data setting and values of it, e.g. `data.digit_side 8 16 32`: accuracy with each."""
    json: bool = False
    """Print one JSON object and nothing else."""
    output: Annotated[Path | None, ShortO] = None
    """File to write the JSON object to as well."""
    outputs: Path | None = None
    """NumPy .npz file for each example's id, label, predicted class, loss and logits."""
    settings: Settings = DEFAULTS


def evaluate(words: Sequence[str]) -> int:
    """`jaxres evaluate`: metrics as tables or JSON, one evaluation, several or a sweep."""
    own, flags = split_settings(words)
    args = recipes.parse(Evaluate, own, prog="jaxres evaluate")
    several = len(args.run_dir) > 1 or args.checkpoint == "all"
    if not args.run_dir:
        raise InputError("jaxres evaluate needs a run directory, or several")
    if several and (args.sweep or args.outputs):
        asked = "--sweep" if args.sweep else "--outputs"
        raise InputError(f"{asked} is given for several checkpoints; allowed: one")
    if args.sweep and args.outputs:
        raise InputError("--outputs is given with --sweep; allowed: one of them")
    for path in (args.output, args.outputs):
        if path is not None:
            require_writable(path)
    quiet_libraries()
    from jaxres.evaluation import run

    (first, *_) = args.run_dir
    result: dict[str, Any]
    options: dict[str, Any] = {"split": args.split, "flags": flags}
    if args.sweep:
        result = run.sweep(first, args.sweep, shown=True, which=args.checkpoint, **options)
    elif several:
        chosen = [
            (run_dir, step)
            for run_dir in args.run_dir
            for step in run.steps(run_dir, args.checkpoint)
        ]
        rows = [
            {"run_dir": str(run_dir), **run.evaluate(run_dir, which=step, **options)}
            for run_dir, step in track(chosen, len(chosen), "evaluate, checkpoints", True)
        ]
        result = {"results": rows}
    else:
        outputs = args.outputs is not None
        result = run.evaluate(first, which=args.checkpoint, outputs=outputs, **options)
        _write_outputs(args.outputs, result.pop("outputs", {}))
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
    elif several:
        columns = [key for key in COMPARED if any(key in row for row in result["results"])]
        # As --checkpoint takes it, without a comma.
        rows = [{**row, "checkpoint": str(row["checkpoint"])} for row in result["results"]]
        print_table(columns, ([row.get(key, "") for key in columns] for row in rows))
    else:
        _print(result)
    return 0


def _write_outputs(path: Path | None, outputs: dict[str, Any]) -> None:
    """Each example's outputs as a NumPy file, whole."""
    if path is None:
        return
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, **outputs)
    with refusing(path):
        write_whole(path, content.getvalue())


def _print(result: dict[str, Any]) -> None:
    """One evaluation as tables."""
    scored = f"mAP {result[SCORE]:.4f}  " if SCORE in result else ""
    print(
        f"{result['dataset']} {result['split']}: accuracy {result['accuracy']:.4f}  "
        f"loss {result['loss']:.4f}  {scored}({result['examples']} examples, "
        f"checkpoint of step {result['checkpoint']})\n"
    )
    more = {"top5_accuracy": "top-5 accuracy", "calibration_error": "calibration error"}
    for key in (key for key in more if key in result):
        print(f"{more[key]} {result[key]:.4f}")
    columns = ("class", "precision", "recall", "f1", "support")
    if scored:
        columns = (*columns[:4], "average_precision", "support")
    print_table(columns, ([entry[key] for key in columns] for entry in result["per_class"]))
    print("\nconfusion (row: true class, column: predicted)")
    names = [entry["class"] for entry in result["per_class"]]
    rows = zip(names, result["confusion"], strict=True)
    print_table(("", *names), ([name, *row] for name, row in rows))
