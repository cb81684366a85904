"""The convolutions of a model, read from its traced program: nothing is computed."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxres.models.pure import abstract_net
from jaxres.ops.conv import Geometry, force_lowering


def convolutions(
    name: str,
    image_size: int,
    batch_size: int,
    dtype: str = "float32",
    *,
    classes: int = 1000,
    **options: Any,
) -> dict[Geometry, int]:
    """The distinct convolutions of a training forward pass and how often each occurs.

    In the order of the program, so the first one reads the pictures. `options` are the model's.

    Raises:
        InputError: no model has this name, or the model does not take an option's value.
    """
    net = abstract_net(
        name, classes=classes, image_size=image_size, dtype=jnp.dtype(dtype), **options
    )
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), dtype)
    with force_lowering("xla"):
        program = jax.make_jaxpr(lambda *inputs: net.apply(*inputs, train=True))(
            net.params, net.stats, images
        )
    found: dict[Geometry, int] = {}
    for equation in _convolutions(program.jaxpr):
        geometry = _geometry(equation)
        found[geometry] = found.get(geometry, 0) + 1
    return found


def _convolutions(program: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Every convolution, inner programs included."""
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if isinstance(inner, core.Jaxpr):
                yield from _convolutions(inner)


def _geometry(equation: core.JaxprEqn) -> Geometry:
    images, kernel = (_aval(variable) for variable in equation.invars)
    params = equation.params
    rows, columns = params["padding"]
    height, width = params["window_strides"]
    return Geometry(
        batch=images.shape[0],
        size=images.shape[1:3],
        channels=images.shape[3],
        kernel=kernel.shape[:2],
        features=kernel.shape[3],
        stride=(height, width),
        padding=((rows[0], rows[1]), (columns[0], columns[1])),
        groups=params["feature_group_count"],
        dtype=images.dtype.name,
    )


def _aval(variable: Any) -> Any:
    return variable.aval
