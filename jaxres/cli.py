"""The command line: a dataclass of arguments and a function per command.

Errors a user can cause become one line on standard error and status 2; a failure while running
is status 1. Imports of JAX and TFDS wait until a command needs them, so that help is quick.
"""

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import tyro
from tyro.conf import Positional

from jaxres import recipe as recipes
from jaxres.config import Config, Split
from jaxres.errors import InputError, Interrupted, TrainingFailed, sentence, unknown_name
from jaxres.recipe import Settings

DEFAULTS = Config()
MAX_COUNTED = 10**9  # larger shapes are no numbers to XLA


@dataclasses.dataclass(frozen=True)
class Train:
    """Train by a recipe, or go on with a run of it, then evaluate the best checkpoint."""

    recipe: Positional[Path]
    """YAML file of differences from the defaults below."""
    output_dir: Path | None = None
    """Run directory; default: runs/ and the recipe's name. If it holds a run, go on with it."""
    profile: bool = False
    """Write a jax.profiler trace of some steps to the run directory."""
    settings: Settings = DEFAULTS


def train(words: Sequence[str]) -> int:
    """`jaxres train`: status 0 also when a signal stopped a run that is saved."""
    own, flags = split_settings(words)
    args = recipes.parse(Train, own, prog="jaxres train")
    config = recipes.load(args.recipe, flags)
    run_dir = args.output_dir or default_run_dir(args.recipe)
    quiet_libraries()
    from jaxres.training import loop

    try:
        summary = loop.train(config, run_dir, profile=args.profile)
    except Interrupted as stopped:
        say(str(stopped))
        return 0
    if not summary:  # the first of several processes speaks for all
        return 0
    test = summary["test"]
    print(
        f"test accuracy {test['accuracy']:.4f}  loss {test['loss']:.4f}  "
        f"({test['examples']} examples, checkpoint of step {test['checkpoint']})"
    )
    print(f"run directory: {run_dir}")
    return 0


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


@dataclasses.dataclass(frozen=True)
class Predict:
    """Say what a run's checkpoint sees in picture files, or write a contest submission."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`, or output of `jaxres import-weights`."""
    images: Positional[tuple[Path, ...]] = ()
    """PNG or JPEG files; they are resized to the run's pictures."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    submission: Path | None = None
    """Array of pictures without labels, in place of files (see docs/predict.md)."""
    output: Path | None = None
    """CSV file to write for --submission (also `-o`)."""
    json: bool = False
    """Print one JSON object and nothing else."""


def predict(words: Sequence[str]) -> int:
    """`jaxres predict`: classes and probabilities as a table or JSON, or a CSV file."""
    spelled = ["--output" if word == "-o" else word for word in words]
    args = recipes.parse(Predict, spelled, prog="jaxres predict")
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
        print(f"written: {args.output} ({count:,} pictures)")
        return 0
    results = predicting.predict(args.run_dir, args.images, **options)
    if args.json:
        print(json.dumps({"predictions": results}))
        return 0
    columns = ("file", "class", "probability")
    print_table(columns, ([result[key] for key in columns] for result in results))
    return 0


@dataclasses.dataclass(frozen=True)
class Models:
    """List the networks with their parameters, GFLOP (2 per multiply-add) and activations."""

    pattern: Positional[str] = "*"
    """Which networks, as `resnet*`."""
    image_size: int = 224
    """Side of the picture in pixels."""
    classes: int = 1000
    """Outputs of the last layer."""
    json: bool = False
    """Print one JSON object and nothing else."""


def models(words: Sequence[str]) -> int:
    """`jaxres models`: a table or JSON."""
    args = recipes.parse(Models, words, prog="jaxres models")
    for key, value in (("classes", args.classes), ("image-size", args.image_size)):
        if not 1 <= value <= MAX_COUNTED:
            raise InputError(f"--{key} is {value}; allowed: 1 to {MAX_COUNTED}")
    quiet_libraries()
    from jaxres.models import count, registry

    names = registry.list_models(args.pattern)
    if not names:
        raise unknown_name("model", args.pattern, registry.list_models())
    fitting = [name for name in names if registry.smallest_image(name) <= args.image_size]
    if fitting and (left_out := sorted(set(names) - set(fitting))):
        say(f"left out, for larger pictures only: {', '.join(left_out)}")
    costs = [
        count.count(name, image_size=args.image_size, classes=args.classes)._asdict()
        for name in fitting or names
    ]
    if args.json:
        print(json.dumps({"models": costs}))
        return 0
    columns = ("name", "parameters", "parameters_with_stats", "gflop", "activations")
    print_table(columns, ([cost[key] for key in columns] for cost in costs))
    return 0


@dataclasses.dataclass(frozen=True)
class DataList:
    """List the data sets JaxRes knows, and which are ready."""

    data_dir: str = ""
    """Folder of prepared data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    json: bool = False
    """Print one JSON object and nothing else."""


def data_list(words: Sequence[str]) -> int:
    """`jaxres data list`: a table or JSON."""
    args = recipes.parse(DataList, words, prog="jaxres data list")
    from jaxres.data import backgrounds, sources
    from jaxres.data.paths import data_dir

    folder = data_dir(args.data_dir)
    rows = sources.describe(folder) + backgrounds.describe(folder)
    if args.json:
        listed = [row._asdict() for row in rows]
        print(json.dumps({"data_dir": str(folder), "datasets": listed}))
        return 0
    columns = ("name", "ready", "examples", "title")
    print_table(columns, ([getattr(row, key) for key in columns] for row in rows))
    for row in rows:
        if row.problem:
            print(f"\n{row.name}: {row.problem}")
        if row.partial:
            print(f"\n{row.name} is partial: {row.partial}")
    print(f"\nprepared data sets live in {folder}")
    return 0


@dataclasses.dataclass(frozen=True)
class DataPrepare:
    """Make a data set ready: a TFDS data set in ArrayRecord files."""

    name: Positional[str]
    """Which (see `jaxres data list`)."""
    from_dir: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder with the published files (or their archive); without it they are downloaded."""
    data_dir: str = ""
    """Folder of prepared data sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    photo_side: int = 256
    """Photographs are shrunk to this short side in pixels (never enlarged)."""
    partial: bool = False
    """Take what is there of an incomplete cifar10 or flowers; the data set then says so."""
    overwrite: bool = False
    """Make it again if it is there."""


def data_prepare(words: Sequence[str]) -> int:
    """`jaxres data prepare`."""
    args = recipes.parse(DataPrepare, words, prog="jaxres data prepare")
    quiet_libraries()
    # As Ctrl-C does, SIGTERM unwinds, so that nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from jaxres.data import prepare
    from jaxres.data.paths import data_dir

    path = prepare.prepare(
        args.name,
        from_dir=args.from_dir,
        data_dir=data_dir(args.data_dir),
        photo_side=args.photo_side,
        partial=args.partial,
        overwrite=args.overwrite,
    )
    print(f"ready: {path}")
    return 0


@dataclasses.dataclass(frozen=True)
class DataPreview:
    """Draw a contact sheet of a recipe's pictures with their labels."""

    recipe: Positional[Path]
    """YAML file of differences from the defaults."""
    output: Path = Path("preview.png")
    """PNG file to write (also `-o`)."""
    split: Split = "train"
    """Which part of the data set."""
    count: int = 64
    """Number of pictures."""
    settings: Settings = DEFAULTS


def data_preview(words: Sequence[str]) -> int:
    """`jaxres data preview`."""
    own, flags = split_settings("--output" if word == "-o" else word for word in words)
    args = recipes.parse(DataPreview, own, prog="jaxres data preview")
    config = recipes.load(args.recipe, flags, prog="jaxres data preview")
    if args.count < 1:
        raise InputError(f"--count is {args.count}; allowed: 1 or more")
    quiet_libraries()
    from jaxres.data import preview

    preview.write_sheet(config, args.output, split=args.split, count=args.count)
    print(f"written: {args.output}")
    return 0


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Make a checkpoint of PyTorch, safetensors or Keras weights (see docs/weights.md)."""

    file: Positional[Path]
    """.pth, .pt, .th, .safetensors, .h5, .weights.h5 or .keras."""
    model: str
    """Whose weights they are (see `jaxres models`)."""
    output: Path
    """New folder, for `jaxres evaluate` and `model.init_from` (also `-o`)."""
    classes: int | None = None
    """Outputs of the last layer, where the file has none; default: 10 for CIFAR, else 1000."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green and blue over 255; default: as the published weights expect."""
    std: tuple[float, float, float] | None = None
    """Then divided by; default: as the published weights expect."""


def import_weights(words: Sequence[str]) -> int:
    """`jaxres import-weights`."""
    spelled = ["--output" if word == "-o" else word for word in words]
    args = recipes.parse(ImportWeights, spelled, prog="jaxres import-weights")
    if (args.mean is None) != (args.std is None):
        raise InputError("--mean and --std belong together: give both, or neither")
    quiet_libraries()
    from jaxres.weights import importing
    from jaxres.weights.layout import Inputs

    inputs = Inputs(args.mean, args.std) if args.mean and args.std else None
    made = importing.import_weights(
        args.file, args.model, args.output, classes=args.classes, inputs=inputs
    )
    head = "a fresh head" if made.new_head else "the file's head"
    print(f"{args.model} of {made.format}, with {head} for {made.classes} classes")
    print(f"written: {args.output}")
    return 0


Command = Callable[[Sequence[str]], int]

COMMANDS: dict[str, tuple[Command, type]] = {
    "train": (train, Train),
    "evaluate": (evaluate, Evaluate),
    "predict": (predict, Predict),
    "models": (models, Models),
    "import-weights": (import_weights, ImportWeights),
    "data list": (data_list, DataList),
    "data prepare": (data_prepare, DataPrepare),
    "data preview": (data_preview, DataPreview),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    problem = ""
    try:
        status = dispatch(words)
    except InputError as error:
        status, problem = 2, sentence(error)
    except TrainingFailed as error:
        status, problem = 1, sentence(error)
    except SystemExit as stop:  # --help
        status = int(stop.code or 0)
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    except BrokenPipeError:
        # The reader of our output has gone; keep Python from failing again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        traceback.print_exc()
        status, problem = 1, f"{type(error).__name__}: {error}"
    if problem:
        say(f"error: {problem}")
    if status and (processes := sys.modules.get("jaxres.training.processes")):
        processes.abandon(problem or "interrupted", status)
    return status


def dispatch(words: list[str]) -> int:
    """Find the command and run it."""
    if not words:
        print_help(sys.stderr)
        return 2
    if words[0] in ("-h", "--help", "help"):
        print_help(sys.stdout)
        return 0
    if words[0] == "--version":
        from jaxres import __version__

        print(f"jaxres {__version__}")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return COMMANDS[name][0](words[length:])
    if words[0] == "data":
        second = [name.partition(" ")[2] for name in COMMANDS if name.startswith("data ")]
        raise unknown_name("command after 'data'", " ".join(words[1:2]), second)
    raise unknown_name("command", words[0], {name.partition(" ")[0] for name in COMMANDS})


def print_help(stream: TextIO) -> None:
    """The commands, a line each."""
    print("usage: jaxres COMMAND [--help]\n", file=stream)
    for name, (_, arguments) in COMMANDS.items():
        print(f"  {name:14} {(arguments.__doc__ or '').splitlines()[0]}", file=stream)


def split_settings(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and the `--section.key VALUE ...` words that are settings."""
    own: list[str] = []
    settings: list[str] = []
    into = own
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            into = settings if "." in word.partition("=")[0] else own
        into.append(word)
    return own, settings


def default_run_dir(recipe: Path) -> Path:
    """runs/NAME for configs/NAME.yaml, runs/FOLDER/NAME for configs/FOLDER/NAME.yaml."""
    folder = recipe.resolve().parent.name
    return Path("runs") / ("" if folder == "configs" else folder) / recipe.stem


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the screen."""
    import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("jax", "orbax", "tensorflow_datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output: text to the left, numbers to the right."""

    def shown(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:.4f}"
        if isinstance(value, dict):
            return ", ".join(f"{key} {item:,}" for key, item in value.items())
        return f"{value:,}" if isinstance(value, int) else str(value)

    table = [list(row) for row in rows]
    cells = [list(columns), *([shown(value) for value in row] for row in table)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
    right = [bool(table) and isinstance(table[0][k], int | float) for k in range(len(columns))]
    for row in cells:
        parts = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())


if __name__ == "__main__":
    sys.exit(main())
