"""Models by name."""

import fnmatch
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from flax import nnx

from jaxres.models.families import cifar, cnn, mobilenet, resnet, shufflenet, vgg, xception
from jaxres.models.network import Network
from jaxres.models.options import Options
from jaxres.runtime.errors import InputError, find
from jaxres.runtime.own_code import is_registered, own_code, registering

Build = type[Network] | partial[Any]  # a network's class, or that and its table line
Model = TypeVar("Model", bound=Build)


def merged(*tables: Mapping[str, Build]) -> dict[str, Build]:
    """The families' tables as one.

    Raises:
        ValueError: two models have one name.
    """
    by_name: dict[str, Build] = {}
    for table in tables:
        for name, build in table.items():
            if name in by_name:
                raise ValueError(f"two models are named '{name}'")
            by_name[name] = build
    return by_name


_MODELS = merged(
    resnet.MODELS,
    vgg.MODELS,
    mobilenet.MODELS,
    shufflenet.MODELS,
    xception.MODELS,
    cifar.MODELS,
    cnn.MODELS,
)


def register_model(name: str) -> Callable[[Model], Model]:
    """Decorator that makes a `Network` available as `model.name: NAME`.

    It is built by `Build(options, rngs=rngs)`; see CONTRIBUTING.md for an example.

    Raises:
        ValueError: the name is taken or is empty, or it is not a `Network`.
    """

    def entry(build: Any) -> Build:
        family = build.func if isinstance(build, partial) else build
        if not (isinstance(family, type) and issubclass(family, Network)):
            raise ValueError(f"a model '{name}' is registered, which is not a subclass of Network")
        return build

    return registering("model", name, _MODELS, entry)


def create(name: str, options: Options, *, rngs: nnx.Rngs) -> Network:
    """Build a model.

    Raises:
        InputError: no model has this name, or the model does not take an option's value.
    """
    family = family_of(name)
    if options.image_size < family.smallest_image:
        raise InputError(
            f"images (data.canvas, resize or pad) of {options.image_size} pixels; allowed for "
            f"{name}: {family.smallest_image} pixels or more"
        )
    for option in ("stem", "spatial_dropout"):
        given = getattr(options, option)
        if given is not None and option not in family.own_options:
            raise InputError(f"model.{option} is {given}, but {name} has none: leave it out")
    with own_code(f"the model '{name}'", when=is_registered("model", name)):
        return cast(Any, _MODELS[name])(options, rngs=rngs)


def family_of(name: str) -> type[Network]:
    """The class of a model.

    Raises:
        InputError: no model has this name.
    """
    build = find("model", name, _MODELS)
    return cast(type[Network], build.func if isinstance(build, partial) else build)


def smallest_image(name: str) -> int:
    """Side of the smallest images that a model takes, pixels."""
    return family_of(name).smallest_image


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as "resnet*", in the order of their tables."""
    return [name for name in _MODELS if fnmatch.fnmatchcase(name, pattern)]
