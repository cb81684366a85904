"""JaxRes trains and evaluates convolutional classifiers on images, some of them made on the fly.

From Python: `jaxres.train`, `jaxres.open_run`, `jaxres.load`, `jaxres.create_model`; docs/api.md
shows them at work.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxres.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """The names of `jaxres.api`, which imports JAX: the command line's help does without."""
    if name.startswith("_"):
        raise AttributeError(f"module 'jaxres' has no attribute '{name}'")
    api = importlib.import_module("jaxres.api")
    if name not in api.__all__:
        raise AttributeError(f"module 'jaxres' has no attribute '{name}'")
    return getattr(api, name)


def __dir__() -> list[str]:
    api = importlib.import_module("jaxres.api")
    return ["__version__", *api.__all__]
