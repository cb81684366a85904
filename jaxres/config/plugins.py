"""Modules of a user's own that register networks, datasets, losses or optimisers."""

import dataclasses
import functools
import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata

from jaxres.runtime.errors import InputError, brief

FLAGS = ("--plugins.imports", "--imports")  # of settings, and of commands without
GROUP = "jaxres.plugins"  # of entry points


@dataclasses.dataclass(frozen=True)
class PluginsConfig:
    """Code that is not part of JaxRes."""

    imports: tuple[str, ...] = ()
    """Modules to import first, which register networks, datasets, losses or optimisers; in a
    recipe also the key `imports`."""


def imports_among(words: Sequence[str]) -> list[str]:
    """The modules that command-line words ask for; the last time they are given counts."""
    names: list[str] = []
    taking = False
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            taking = flag in FLAGS
            names = ([value] if equals else []) if taking else names
        elif taking:
            names.append(word)
    return names


def import_all(names: Iterable[str]) -> None:
    """Import the modules, also from the folder where JaxRes was started.

    Raises:
        InputError: one cannot be imported, or raises an error.
    """
    for name in names:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise _failed(f"plugins.imports: module '{name}'", error) from error
            raise InputError(
                f"plugins.imports has '{name}', which is not a module here; allowed: modules that "
                "are installed, or lie in the folder where JaxRes is started"
            ) from None
        except (Exception, SystemExit) as error:
            raise _failed(f"plugins.imports: module '{name}'", error) from error


@functools.cache
def load_installed() -> None:
    """Import the plugins that are installed: the entry points `jaxres.plugins`.

    Raises:
        InputError: one raises an error.
    """
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except (Exception, SystemExit) as error:
            raise _failed(f"the installed plugin '{point.name}' ({point.value})", error) from error


def _failed(what: str, error: BaseException) -> InputError:
    return InputError(f"{what} cannot be imported: {type(error).__name__}: {brief(error)}")
