"""Models by name: the name of the function that builds one is its key."""

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from flax import nnx

from jaxres.errors import unknown_name
from jaxres.models import cnn, resnet


def table(builders: Iterable[Callable[..., nnx.Module]]) -> dict[str, Callable[..., nnx.Module]]:
    """Builders by their function names.

    Raises:
        ValueError: two builders have one name.
    """
    by_name: dict[str, Callable[..., nnx.Module]] = {}
    for builder in builders:
        if builder.__name__ in by_name:
            raise ValueError(f"two models are named '{builder.__name__}'")
        by_name[builder.__name__] = builder
    return by_name


_MODELS = table([*resnet.MODELS, *cnn.MODELS])


def create(name: str, **options: Any) -> nnx.Module:
    """Build a model; `options` are the keyword arguments of its function.

    Raises:
        InputError: no model has this name, or the model does not take an option's value.
    """
    if name not in _MODELS:
        raise unknown_name("model", name, _MODELS)
    return _MODELS[name](**options)


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as "resnet*", in the order of their tables."""
    return [name for name in _MODELS if fnmatch.fnmatchcase(name, pattern)]
