"""From what a caller gives, a recipe and settings by name, to `Config` or to flags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxres.config import Config, recipe, to_dict, unflatten
from jaxres.config.recipe import check_keys, to_flags
from jaxres.runtime.errors import InputError

Settings = Mapping[str, Any]


def as_flags(settings: Settings | None) -> list[str]:
    """`{"train.epochs": 2}` as `["--train.epochs", "2"]`; None is `null`, a tuple several words.

    Raises:
        InputError: a key is unknown, or not `section.key`.
    """
    given = dict(settings or {})
    for key in given:
        if not isinstance(key, str) or key.count(".") != 1:
            raise InputError(f"settings have the key {key!r}; allowed: 'section.key'")
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    nested = unflatten(plain)
    check_keys(nested, where="the settings")
    return to_flags(nested)


def as_config(given: str | Path | Config, settings: Settings | None) -> Config:
    """The settings of a recipe (a file, or the name of one that comes with JaxRes), or a Config.

    Raises:
        InputError: there is no such recipe, or a setting cannot be used.
    """
    flags = as_flags(settings)
    if isinstance(given, Config):
        return recipe.from_dict(to_dict(given), flags)
    return recipe.load(given, flags, prog="jaxres.train")
