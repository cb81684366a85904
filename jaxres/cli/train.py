"""`jaxres train`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tyro.conf import Positional

from jaxres.checkpoint.progress import SCORE
from jaxres.config import recipe as recipes
from jaxres.config.recipe import DEFAULTS, Settings, split_settings
from jaxres.config.shipped import find_recipe
from jaxres.runtime.errors import InputError, Interrupted
from jaxres.runtime.screen import quiet_libraries, say


@dataclasses.dataclass(frozen=True)
class Train:
    """Train as a recipe says, or resume such a run, then evaluate the best checkpoint."""

    recipe: Positional[Path]
    """YAML file of differences from the defaults below, or the name of a recipe that comes with
    JaxRes (`jaxres recipes`)."""
    output_dir: Path | None = None
    """Run directory; default: runs/ and the recipe's name. If it holds a run, resume it."""
    profile: bool = False
    """Write a jax.profiler trace of a few steps to the run directory."""
    stopped_status: int = 0
    """Exit status of a run that a signal stopped and that is saved, for schedulers which start a
    job again by its status."""
    allow_other_data: bool = False
    """Resume a run although its dataset or photographs differ from those it began with."""
    settings: Settings = DEFAULTS


def train(words: Sequence[str]) -> int:
    """`jaxres train`; of a run that a signal stopped, once saved, `stopped_status`."""
    own, flags = split_settings(words)
    args = recipes.parse(Train, own, prog="jaxres train")
    if not 0 <= args.stopped_status <= 255:
        raise InputError(f"--stopped-status is {args.stopped_status}; allowed: 0 to 255")
    config = recipes.load(args.recipe, flags)
    run_dir = args.output_dir or default_run_dir(find_recipe(args.recipe))
    quiet_libraries()
    from jaxres.training import loop

    try:
        summary = loop.train(
            config, run_dir, profile=args.profile, other_data=args.allow_other_data
        )
    except Interrupted as stopped:
        say(str(stopped))
        return args.stopped_status
    if not summary:  # the first of several processes speaks for all
        return 0
    test = summary["test"]
    scored = f"mAP {test[SCORE]:.4f}  " if SCORE in test else ""
    print(
        f"test accuracy {test['accuracy']:.4f}  loss {test['loss']:.4f}  {scored}"
        f"({test['examples']} examples, checkpoint of step {test['checkpoint']})"
    )
    print(f"run directory: {run_dir}")
    return 0


def default_run_dir(recipe: Path) -> Path:
    """runs/NAME for configs/NAME.yaml, runs/FOLDER/NAME for configs/FOLDER/NAME.yaml."""
    folder = recipe.resolve().parent.name
    return Path("runs") / ("" if folder == "configs" else folder) / recipe.stem
