"""`jaxres recipes`."""

import dataclasses
import fnmatch
import json
from collections.abc import Sequence

from tyro.conf import Positional

from jaxres.config import recipe, shipped
from jaxres.runtime.errors import unknown_name
from jaxres.runtime.screen import print_table


@dataclasses.dataclass(frozen=True)
class Recipes:
    """List the recipes that come with JaxRes; `jaxres train NAME` takes one of them."""

    pattern: Positional[str] = "*"
    """Which recipes, e.g. `scaled_mnist/*`."""
    json: bool = False
    """Print one JSON object, with each recipe's file, and nothing else."""


def recipes(words: Sequence[str]) -> int:
    """`jaxres recipes`: a table or JSON."""
    args = recipe.parse(Recipes, words, prog="jaxres recipes")
    every = shipped.shipped_recipes()
    found = [
        {"name": name, "about": shipped.about(path), "file": str(path)}
        for name, path in every.items()
        if fnmatch.fnmatchcase(name, args.pattern)
    ]
    if not found:
        raise unknown_name("recipe", args.pattern, every)
    if args.json:
        print(json.dumps({"recipes": found}))
    else:
        print_table(("name", "about"), ([each["name"], each["about"]] for each in found))
    return 0
