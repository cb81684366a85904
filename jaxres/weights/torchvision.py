"""State dicts of torchvision's networks, and of the published CIFAR ResNets.

Kernels of theirs are (out, in, height, width) and (out, in), ours (height, width, in, out) and
(in, out); what they flatten is (channels, height, width), ours (height, width, channels).
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from jaxres.models.families.vgg import DEPTHS, GRID, WIDTHS
from jaxres.weights.layout import Inputs, Layout

# Of ImageNet's training images; the CIFAR ResNets were trained with the same.
INPUTS = Inputs(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Of batch norm; where it has a momentum, as here, the count plays no part.
COUNTER = ".num_batches_tracked"
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
NUMBERS = {"conv": 0, "norm": 1}  # of a convolution and its norm in a row


def layout(model: str) -> Layout | None:
    """The layout of a network of ours; None if they do not have it."""
    module = _module_names(model)
    if module is None:
        return None

    def theirs(name: str) -> str:
        path, _, leaf = name.rpartition(".")
        return f"{module(path)}.{LEAVES[leaf]}"

    return Layout(theirs, _translate, INPUTS)


def _translate(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    flattened = WIDTHS[-1] * GRID**2
    if name == "head.dense.0.kernel" and array.shape[1:] == (flattened,):
        maps = array.reshape(-1, WIDTHS[-1], GRID, GRID)
        return maps.transpose(2, 3, 1, 0).reshape(flattened, -1)
    return array.T


def translate_back(name: str, array: np.ndarray) -> np.ndarray:
    """Our array as theirs is."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    flattened = WIDTHS[-1] * GRID**2
    if name == "head.dense.0.kernel" and array.shape[:1] == (flattened,):
        maps = array.reshape(GRID, GRID, WIDTHS[-1], -1)
        return maps.transpose(3, 2, 0, 1).reshape(-1, flattened)
    return array.T


def _module_names(model: str) -> Callable[[str], str] | None:
    """The function from the dotted path of a layer of ours to theirs."""
    if re.fullmatch(r"(wide_)?resnet\d+(_2)?", model):
        return _resnet
    if re.fullmatch(r"cifar_resnet\d+", model):
        return _cifar_resnet
    if vgg := re.fullmatch(r"vgg(\d+)(_bn)?", model):
        return _vgg(DEPTHS[int(vgg[1])], norm=bool(vgg[2]))
    if model == "mobilenet_v2":
        return _mobilenet
    if model.startswith("shufflenet_v2_"):
        return _shufflenet
    return None


def _resnet(path: str) -> str:
    match path.split("."):
        case ["stem", kind]:
            return {"conv": "conv1", "norm": "bn1"}[kind]
        case ["stages", stage, block, "shortcut", kind]:
            return f"layer{int(stage) + 1}.{block}.downsample.{NUMBERS[kind]}"
        case ["stages", stage, block, layer]:
            return f"layer{int(stage) + 1}.{block}.{layer.replace('norm', 'bn')}"
    return {"head.linear": "fc"}[path]


def _cifar_resnet(path: str) -> str:
    match path.split("."):
        case ["stem", kind]:
            return {"conv": "conv1", "norm": "bn1"}[kind]
        case ["stages", stage, block, place, kind]:
            layer = {"conv": "conv", "norm": "bn"}[kind] + {"first": "1", "second": "2"}[place]
            return f"layer{int(stage) + 1}.{block}.{layer}"
    return {"head.linear": "linear"}[path]


def _vgg(depths: Sequence[int], *, norm: bool) -> Callable[[str], str]:
    """They number convolutions, norms, ReLUs and pools of the body in one row."""
    places, place = [], 0
    for depth in depths:
        step = 3 if norm else 2
        places += range(place, place + depth * step, step)
        place += depth * step + 1

    def module(path: str) -> str:
        match path.split("."):
            case ["convs", number, *kind]:
                return f"features.{places[int(number)] + (kind == ['norm'])}"
            case ["head", "dense", number]:
                return f"classifier.{3 * int(number)}"  # ReLU and dropout follow each
        return {"head.linear": "classifier.6"}[path]

    return module


def _mobilenet(path: str) -> str:
    match path.split("."):
        case ["stem" | "last" as end, kind]:
            return f"features.{0 if end == 'stem' else 18}.{NUMBERS[kind]}"
        case ["blocks", block, part, kind]:
            # The first block does not expand. The last convolution and its norm are not grouped.
            number = ["expand", "depthwise", "project"].index(part) - (block == "0")
            within = f"{number}.{NUMBERS[kind]}"
            if part == "project":
                within = str(number + NUMBERS[kind])
            return f"features.{int(block) + 1}.conv.{within}"
    return {"head.linear": "classifier.1"}[path]


def _shufflenet(path: str) -> str:
    match path.split("."):
        case ["stem" | "last" as end, kind]:
            return f"{'conv1' if end == 'stem' else 'conv5'}.{NUMBERS[kind]}"
        case ["stages", stage, block, "shortcut", part, kind]:
            number = {"depthwise": 0, "last": 2}[part] + NUMBERS[kind]
            return f"stage{int(stage) + 2}.{block}.branch1.{number}"
        case ["stages", stage, block, "branch", part, kind]:
            number = {"first": 0, "depthwise": 3, "last": 5}[part] + NUMBERS[kind]
            return f"stage{int(stage) + 2}.{block}.branch2.{number}"
    return {"head.linear": "fc"}[path]
