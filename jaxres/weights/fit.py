"""The weights in another library's file as those of a network of ours: all of them, or an error."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxres.models import registry
from jaxres.models.pure import Net, abstract_net, create_net, flatten, unflatten
from jaxres.runtime.errors import InputError
from jaxres.weights import foreign, keras, torchvision
from jaxres.weights.foreign import Foreign
from jaxres.weights.layout import Inputs, Layout

HEAD = "head."
LAST_BIAS = "head.linear.bias"
LISTED = 4  # names in a sentence
MAX_CLASSES = 1 << 20  # a head for as many of ResNet-50 takes 8 GiB

Arrays = dict[str, np.ndarray]
PyTree = Any


class Fitted(NamedTuple):
    """A network's `params` and `stats` from a file of a `format` of `foreign.Foreign`.

    `inputs` is what the published weights expect. With `new_head` the file has no last layers, and
    those of `params` are fresh. `notes` tell what of the file was chosen, and what left out.
    """

    params: PyTree
    stats: PyTree
    classes: int
    inputs: Inputs
    format: str
    new_head: bool
    notes: tuple[str, ...]


def fit(
    file: Path,
    model: str,
    *,
    classes: int | None = None,
    seed: int = 0,
    published: bool = True,
    key: str | None = None,
) -> Fitted:
    """Read a file's weights, or those of its entry `key`, into a network of ours.

    `classes` counts the outputs of a fresh last layer, drawn from `seed`, where the file has none,
    and must be the file's otherwise. Without `published`, kernels that Keras has for blue, green
    and red are taken to be for red, green and blue.

    Raises:
        InputError: the file is not a weight file, or not of this model.
    """
    registry.family_of(model)
    weights = foreign.read(file, key)
    layout = _layout(file, model, weights, published)
    last_bias = weights.arrays.get(layout.theirs(LAST_BIAS))
    options = {
        "classes": _classes(file, model, last_bias, classes),
        "image_size": registry.smallest_image(model),  # shapes do not depend on it
    }
    net = abstract_net(model, **options)
    arrays = _translated(file, model, net, weights.arrays, layout)
    new_head = LAST_BIAS not in arrays
    if new_head:
        fresh = flatten(create_net(model, key=jax.random.key(seed), **options).params)
        heads = {name: leaf for name, leaf in fresh.items() if name.startswith(HEAD)}
        arrays |= {name: np.asarray(leaf) for name, leaf in jax.device_get(heads).items()}
    params, stats = (
        unflatten({name: arrays[name] for name in flatten(tree)})
        for tree in (net.params, net.stats)
    )
    details = layout.inputs, weights.format, new_head, weights.notes
    return Fitted(params, stats, options["classes"], *details)


def _layout(file: Path, model: str, weights: Foreign, published: bool) -> Layout:
    """The layout of the library that wrote the file.

    Raises:
        InputError: it does not have this network.
    """

    def of(name: str) -> Layout | None:
        if weights.format in ("pytorch", "safetensors"):
            return torchvision.layout(name)
        named = weights.format == "keras_h5"
        return keras.layout(name, [*weights.arrays], named=named, published=published)

    if layout := of(model):
        return layout
    known = ", ".join(name for name in registry.list_models() if of(name))
    raise InputError(
        f"'{file}' has format {weights.format}, which {model} is not known in; allowed: {known}"
    )


def _classes(file: Path, model: str, last_bias: np.ndarray | None, given: int | None) -> int:
    """The number of classes: the file's, else the one given, else that of the published weights."""
    if given is not None and not 1 <= given <= MAX_CLASSES:
        raise InputError(f"--classes is {given}; allowed: 1 to {MAX_CLASSES}")
    if last_bias is None:
        return given or registry.family_of(model).published.classes
    if given is not None and given != last_bias.size:
        raise InputError(
            f"--classes is {given}, but '{file}' has {last_bias.size}; allowed: leave it out, and "
            "give a recipe with model.init_from another number"
        )
    return max(1, last_bias.size)


def _translated(file: Path, model: str, net: Net, given: Arrays, layout: Layout) -> Arrays:
    """The file's arrays under our names and in our layout, all of them or all but the head.

    Raises:
        InputError: some are missing, left over, of wrong shapes or not finite; naming them.
    """
    leaves = {**flatten(net.params), **flatten(net.stats)}
    left = {name: array for name, array in given.items() if not name.endswith(torchvision.COUNTER)}
    arrays: Arrays = {}
    missing, shapes, values = [], [], []
    for name, leaf in leaves.items():
        theirs = layout.theirs(name)
        if theirs not in left:
            missing.append(name)
            continue
        array = layout.translate(name, left.pop(theirs))
        if array.shape != leaf.shape:
            shapes.append(f"{theirs} gives {array.shape} for {leaf.shape}")
        elif array.dtype != np.float32 or not np.isfinite(array).all():
            values.append(theirs)
        arrays[name] = np.ascontiguousarray(array)
    if set(missing) == {name for name in leaves if name.startswith(HEAD)}:
        missing = []
    problems = {
        "missing": [layout.theirs(name) for name in missing],
        "left over": [*left],
        "of other shapes": shapes,
        "with values that are not finite fractions": values,
    }
    if any(problems.values()):
        faults = "; ".join(
            f"{what}: {foreign.some(names, LISTED)}" for what, names in problems.items() if names
        )
        raise InputError(f"'{file}' does not fit {model}: {faults}")
    return arrays
