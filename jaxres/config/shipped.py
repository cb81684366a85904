"""The recipes and studies that come with JaxRes, found by name from any folder."""

import difflib
import os
import re
from pathlib import Path

from jaxres.runtime.errors import InputError

PACKAGE = Path(__file__).parents[1]
SUFFIX = ".yaml"


def shipped(folder: str) -> Path:
    """`configs` or `studies`: inside an installed package, beside it in a source checkout."""
    inside = PACKAGE / "shipped" / folder
    return inside if inside.is_dir() else PACKAGE.parent / folder


def recipe_names() -> list[str]:
    """Names of the recipes that come with JaxRes, such as `scaled_mnist/mini_200pct`, sorted."""
    root = shipped("configs")
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in _recipes(root))


def _recipes(root: Path) -> list[Path]:
    return [*root.glob(f"**/*{SUFFIX}")]


def find_recipe(recipe: str | Path) -> Path:
    """A recipe's file: that path, or the shipped one of that name (`quickstart`).

    Written as a path in a source checkout (`configs/quickstart.yaml`) it is found as well.

    Raises:
        InputError: there is none; with the nearest name.
    """
    root, given = shipped("configs"), Path(recipe)
    # Path.exists raises where a folder may not be entered; whoever reads the file says so.
    if os.path.exists(given) or given.is_absolute() or ".." in given.parts:
        return given
    for path in (root.parent / given, root / given.with_name(given.name + SUFFIX)):
        if os.path.isfile(path) and path.is_relative_to(root):
            return path
    if given.suffix == SUFFIX and given.parts[0] != root.name:
        return given  # whoever reads it says that it is not there
    name = given.as_posix().removeprefix(f"{root.name}/").removesuffix(SUFFIX)
    near = difflib.get_close_matches(name, recipe_names(), n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else ""
    raise InputError(
        f"unknown recipe '{name}'{hint} (allowed: a YAML file, or a name from 'jaxres recipes')"
    )


def about(name: str) -> str:
    """The first sentence of a shipped recipe's opening comment, if there is one."""
    text = (shipped("configs") / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return re.split(r"[.](?= [A-Z]|$)", " ".join(lines))[0]
