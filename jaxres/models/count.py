"""What a model costs, counted from its traced program: nothing is computed."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxres.models.pure import Net, abstract_net
from jaxres.ops.conv import force_lowering


class ModelCost(NamedTuple):
    """Costs of one image's forward pass; `gflop` at 2 per multiply-add, convolutions and linear
    layers only, and `activations` the number of values those layers put out."""

    name: str
    parameters: int
    parameters_with_stats: int
    gflop: float
    activations: int


def count(name: str, *, image_size: int = 224, classes: int = 1000) -> ModelCost:
    """Count a model of the registry.

    Raises:
        InputError: no model has this name, or the model does not take images of this size.
    """
    return count_net(name, abstract_net(name, classes=classes, image_size=image_size), image_size)


def count_net(name: str, net: Net, image_size: int) -> ModelCost:
    """Count a network that takes square images of `image_size` pixels."""
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    with force_lowering("xla"):
        program = jax.make_jaxpr(lambda *inputs: net.apply(*inputs, train=False))(
            net.params, net.stats, image
        )
    layers = list(_layers(program.jaxpr))
    parameters = _size(net.params)
    return ModelCost(
        name=name,
        parameters=parameters,
        parameters_with_stats=parameters + _size(net.stats),
        gflop=sum(flop for flop, _ in layers) / 1e9,
        activations=sum(outputs for _, outputs in layers),
    )


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _layers(program: core.Jaxpr) -> Iterator[tuple[int, int]]:
    """FLOP and output size of each convolution and matrix product, inner programs included."""
    for equation in program.eqns:
        shapes = [_shape(variable) for variable in equation.invars]
        outputs = math.prod(_shape(equation.outvars[0]))
        if equation.primitive.name == "conv_general_dilated":
            features = shapes[1][equation.params["dimension_numbers"].rhs_spec[0]]
            yield 2 * outputs * math.prod(shapes[1]) // features, outputs
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            yield 2 * outputs * math.prod(shapes[0][axis] for axis in contracted), outputs
        else:
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if isinstance(inner, core.Jaxpr):
                    yield from _layers(inner)
