"""`jaxres models`."""

import dataclasses
import json
from collections.abc import Sequence

from tyro.conf import Positional

from jaxres.config import recipe as recipes
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.screen import print_table, quiet_libraries, say

MAX_COUNTED = 10**9  # larger shapes are not numbers to XLA


@dataclasses.dataclass(frozen=True)
class Models:
    """List the networks with their parameters, GFLOP (2 per multiply-add) and activations."""

    pattern: Positional[str] = "*"
    """Which networks, e.g. `resnet*`."""
    image_size: int = 224
    """Side of the image in pixels."""
    classes: int = 1000
    """Outputs of the last layer."""
    json: bool = False
    """Print one JSON object and nothing else."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first."""


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
        say(f"left out, for larger images only: {', '.join(left_out)}")
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
