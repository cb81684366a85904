"""The recipes and studies that come with JaxRes, found by name from any folder."""

import itertools
import os
import re
from pathlib import Path

from jaxres.runtime.errors import unknown_name

PACKAGE = Path(__file__).parents[1]
SUFFIX = ".yaml"
IN_CHECKOUT = "configs/"


def shipped(folder: str) -> Path:
    """`configs` or `studies`: inside an installed package, beside it in a source checkout."""
    inside = PACKAGE / "shipped" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def shipped_recipes() -> dict[str, Path]:
    """The files of the recipes by their names, such as `scaled_mnist/mini_200pct`, sorted."""
    root = shipped("configs")
    files = sorted(root.glob(f"**/*{SUFFIX}"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files}


def find_recipe(recipe: str | Path) -> Path:
    """A recipe's file: that path, or the shipped one of that name (`quickstart`).

    Written as a path in a source checkout (`configs/quickstart.yaml`) it is found as well.

    Raises:
        InputError: there is none; with the nearest name.
    """
    given = Path(recipe)
    # Path.exists raises where a folder may not be entered; whoever reads the file says so.
    if os.path.exists(given) or given.is_absolute() or ".." in given.parts:
        return given
    name = given.as_posix()
    if name.startswith(IN_CHECKOUT):
        name = name.removeprefix(IN_CHECKOUT).removesuffix(SUFFIX)
    elif given.suffix == SUFFIX:
        return given  # whoever reads it says that it is not there
    recipes = shipped_recipes()
    if name not in recipes:
        allowed = "a YAML file, or a name from 'jaxres recipes'"
        raise unknown_name("recipe", name, recipes, shown=allowed)
    return recipes[name]


def about(recipe: Path) -> str:
    """The first sentence of a recipe's opening comment, if there is one; commands are indented."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: re.match(r"# ?\S", line), lines)
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    return re.split(r"[.](?= [A-Z]|$)", text)[0]
