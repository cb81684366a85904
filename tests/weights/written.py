"""Random weights of our networks, written as another library writes them."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jaxres.models.pure import abstract_net, flatten
from jaxres.weights import keras, torchvision
from jaxres.weights.fit import Fitted
from tests.weights import torch_files

Arrays = dict[str, np.ndarray]


def random_weights(model: str, classes: int = 10) -> Arrays:
    """Our arrays by name, parameters and statistics, of which a network makes finite numbers."""
    net = abstract_net(model, classes=classes, image_size=32)
    shapes = {**flatten(net.params), **flatten(net.stats)}
    random = np.random.default_rng(0)
    made = {name: random.standard_normal(leaf.shape, np.float32) for name, leaf in shapes.items()}
    return {name: 0.1 * (np.abs(a) if name.endswith(".var") else a) for name, a in made.items()}


def as_torchvision(model: str, ours: Mapping[str, np.ndarray]) -> Arrays:
    """A state dict, with the counters that batch norm has there."""
    layout = torchvision.layout(model)
    assert layout is not None
    theirs = {}
    for name, array in ours.items():
        moved = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        theirs[layout.theirs(name)] = np.ascontiguousarray(moved)
        if name.endswith(".mean"):
            counter = layout.theirs(name).replace("running_mean", "num_batches_tracked")
            theirs[counter] = np.array(7)
    return theirs


def as_keras(model: str, ours: Mapping[str, np.ndarray], *, named: bool) -> dict[str, list]:
    """Arrays by layer in Keras's order, named or, as Keras 3's files do, numbered by class."""
    layers, seen = {}, Counter()
    for layer in keras.NETWORKS[model]():
        number = f"_{seen[layer.kind]}" if seen[layer.kind] else ""
        name = f"{layer.kind}{number}"
        if named:
            # Nameless layers have numbers that count on from other models made before.
            name = layer.name or f"{layer.kind}_{seen[layer.kind] + 7}"
        seen[layer.kind] += 1
        layers[name] = [_as_keras(model, array, ours[array]) for array in layer.ours]
    return layers


def _as_keras(model: str, name: str, array: np.ndarray) -> np.ndarray:
    if name in ("stem.conv.kernel", "convs.0.kernel") and model != "xception":
        return array[:, :, ::-1]
    return array.swapaxes(2, 3) if name.endswith("depthwise.kernel") else array


def save_torch(path: Path, arrays: Arrays, *, in_zip: bool = True) -> Path:
    """A state dict in one of torch's formats."""
    write = torch_files.write_zip if in_zip else torch_files.write_stream
    return write(path, torch_files.state_dict(arrays), torch_files.contents(arrays))


def logits(model: str, fitted: Fitted, images: np.ndarray) -> np.ndarray:
    """Of our network with imported weights."""
    net = abstract_net(model, classes=fitted.classes, image_size=images.shape[1])
    evaluate = jax.jit(partial(net.apply, train=False))
    return np.asarray(evaluate(fitted.params, fitted.stats, images)[0])


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """To float32's accuracy after a network's many sums."""
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
