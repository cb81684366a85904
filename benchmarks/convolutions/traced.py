"""The convolutions of a model, read from its traced program: nothing is computed."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from benchmarks.convolutions.bound import flop_of
from jaxres.models.pure import abstract_net
from jaxres.ops.conv import Geometry, force_lowering

CONVOLUTION = "conv_general_dilated"


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

    In the order of the program, so the first one reads the images. `options` are the model's.

    Raises:
        InputError: no model has this name, or the model does not take an option's value.
    """
    program = _program(name, image_size, batch_size, dtype, classes=classes, **options)
    found: dict[Geometry, int] = {}
    for equation in equations(program, CONVOLUTION):
        geometry = _geometry(equation)
        found[geometry] = found.get(geometry, 0) + 1
    return found


def first_layer_flop(name: str, image_size: int, *, classes: int = 1000) -> int:
    """FLOP for one image of the layer that reads it, a convolution or a product."""
    program = _program(name, image_size, 1, "float32", classes=classes)
    first = next(equations(program, CONVOLUTION, "dot_general"))
    if first.primitive.name == CONVOLUTION:
        return flop_of(_geometry(first))
    _, kernel = first.invars
    return 2 * math.prod(_aval(kernel).shape)


def _program(name: str, image_size: int, batch_size: int, dtype: str, **options: Any) -> core.Jaxpr:
    """A training forward pass."""
    net = abstract_net(name, image_size=image_size, dtype=jnp.dtype(dtype), **options)
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), dtype)
    with force_lowering("xla"):
        return jax.make_jaxpr(partial(net.apply, train=True))(
            net.params, net.stats, images, key=jax.random.key(0)
        ).jaxpr


def equations(program: core.Jaxpr, *primitives: str) -> Iterator[core.JaxprEqn]:
    """Every operation of these names, inner programs included."""
    for equation in program.eqns:
        if equation.primitive.name in primitives:
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if isinstance(inner, core.Jaxpr):
                yield from equations(inner, *primitives)


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
