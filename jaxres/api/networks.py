"""Networks with fresh weights, by name."""

import dataclasses
from typing import Any

import jax

from jaxres.models import registry
from jaxres.models.options import Options
from jaxres.models.pure import Net, create_net
from jaxres.runtime.errors import InputError, unknown_name


def create_model(
    name: str, *, classes: int, image_size: int = 224, seed: int = 0, **options: Any
) -> Net:
    """A network as plain JAX: `params` and `stats`, nested dicts of arrays, and `apply`.

    Args:
        name: One of `list_models()`.
        classes: Outputs of the last layer.
        image_size: Side of the square images, pixels.
        seed: What the weights are drawn from.
        options: More fields of `jaxres.models.options.Options`: `stem`, `head`, `dtype`, ...

    `apply(params, stats, images, train=False)` takes normalised images (n, side, side, 3) and gives
    logits (n, classes) and the statistics of batch norm.

    Raises:
        InputError: no model has this name, or it does not take an option's value.
    """
    known = {field.name for field in dataclasses.fields(Options)} - {"classes", "image_size"}
    for option in options:
        if option not in known:
            raise unknown_name("option", option, known)
    for given, value in (("classes", classes), ("image_size", image_size)):
        if value < 1:
            raise InputError(f"{given} is {value}; allowed: 1 or more")
    key = jax.random.key(seed)
    return create_net(name, key=key, classes=classes, image_size=image_size, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as `*wide*`."""
    return registry.list_models(pattern)
