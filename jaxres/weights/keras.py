"""Weights of keras.applications, layer by layer in the order of Keras's own models.

Kernels are laid out as ours are, but that of a depthwise convolution, (height, width, channels, 1)
there. The networks trained in Caffe's manner take blue, green and red: importing them turns the
first kernel round, so that ours take red, green and blue.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxres.models.families import vgg, xception
from jaxres.weights.layout import Inputs, Layout

# keras.applications' modes "tf", to -1..1, and "caffe", less the mean of values up to 255.
TF = Inputs(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CAFFE = Inputs(mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255, 1 / 255, 1 / 255))


class Layer(NamedTuple):
    """A layer of Keras's: its name, its class in snake case, our names of its variables.

    No name: Keras numbers such layers as they are made, so that only their order counts.
    """

    name: str
    kind: str
    ours: tuple[str, ...]


def layout(model: str, there: Sequence[str], *, named: bool, published: bool) -> Layout | None:
    """The layout of a network of ours in a file with arrays named `there`; None if not Keras's.

    `named`: the file's layers have names of their own, not of their classes. `published`: the
    weights take their inputs as those of keras.applications do, not as red, green and blue.
    """
    if model not in NETWORKS:
        return None
    layers = list(NETWORKS[model]())
    found = _by_name(layers, there) if named else _by_class(layers)
    names = {
        ours: f"{name}/{number}"
        for layer, name in zip(layers, found, strict=True)
        for number, ours in enumerate(layer.ours)
    }
    inputs = TF if model == "xception" else CAFFE
    reversed_kernel = layers[0].ours[0] if published and inputs is CAFFE else ""

    def translate(name: str, array: np.ndarray) -> np.ndarray:
        if array.ndim == 4 and name == reversed_kernel:
            return array[:, :, ::-1]
        if array.ndim == 4 and name.endswith("depthwise.kernel"):
            return array.swapaxes(2, 3)
        return array

    return Layout(names.__getitem__, translate, inputs)


def _by_class(layers: Sequence[Layer]) -> Iterator[str]:
    """The second layer of a class is number 1."""
    seen: Counter[str] = Counter()
    for layer in layers:
        yield f"{layer.kind}_{seen[layer.kind]}" if seen[layer.kind] else layer.kind
        seen[layer.kind] += 1


def _by_name(layers: Sequence[Layer], there: Sequence[str]) -> Iterator[str]:
    """Layers without a name, and those of a head with names of its own, are the others in turn."""
    names = dict.fromkeys(array.rpartition("/")[0] for array in there)
    ours = {layer.name for layer in layers}
    others = iter([name for name in names if name not in ours])
    for layer in layers:
        in_head = layer.ours[0].startswith("head.")
        loose = not layer.name or (in_head and layer.name not in names)
        yield next(others, layer.name) if loose else layer.name


def _conv(name: str, path: str, *, bias: bool = True) -> Layer:
    kernel = (f"{path}.kernel",)
    return Layer(name, "conv2d", (*kernel, f"{path}.bias") if bias else kernel)


def _norm(name: str, path: str) -> Layer:
    leaves = ("scale", "bias", "mean", "var")
    return Layer(name, "batch_normalization", tuple(f"{path}.{leaf}" for leaf in leaves))


def _separable(name: str, path: str) -> Layer:
    kernels = (f"{path}.depthwise.kernel", f"{path}.pointwise.kernel")
    return Layer(name, "separable_conv2d", kernels)


def _dense(name: str, path: str) -> Layer:
    return Layer(name, "dense", (f"{path}.kernel", f"{path}.bias"))


def _resnet50() -> Iterator[Layer]:
    yield _conv("conv1_conv", "stem.conv")
    yield _norm("conv1_bn", "stem.norm")
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            name, path = f"conv{stage + 2}_block{block + 1}", f"stages.{stage}.{block}"
            for number in (1, 2):
                yield _conv(f"{name}_{number}_conv", f"{path}.conv{number}")
                yield _norm(f"{name}_{number}_bn", f"{path}.norm{number}")
            if block == 0:
                yield _conv(f"{name}_0_conv", f"{path}.shortcut.conv")
            yield _conv(f"{name}_3_conv", f"{path}.conv3")
            if block == 0:
                yield _norm(f"{name}_0_bn", f"{path}.shortcut.norm")
            yield _norm(f"{name}_3_bn", f"{path}.norm3")
    yield _dense("predictions", "head.linear")


def _vgg(depth: int) -> Iterator[Layer]:
    number = 0
    for block, convs in enumerate(vgg.DEPTHS[depth], 1):
        for place in range(1, convs + 1):
            yield _conv(f"block{block}_conv{place}", f"convs.{number}")
            number += 1
    yield _dense("fc1", "head.dense.0")
    yield _dense("fc2", "head.dense.1")
    yield _dense("predictions", "head.linear")


def _xception() -> Iterator[Layer]:
    for place in range(2):
        yield _conv(f"block1_conv{place + 1}", f"stem.{place}.conv", bias=False)
        yield _norm(f"block1_conv{place + 1}_bn", f"stem.{place}.norm")
    middle = [xception.MIDDLE] * xception.MIDDLE_BLOCKS
    for block, widths in enumerate((*xception.ENTRY, *middle, xception.EXIT)):
        for place in range(len(widths)):
            name, path = f"block{block + 2}_sepconv{place + 1}", f"blocks.{block}.convs.{place}"
            yield _separable(name, path)
            yield _norm(f"{name}_bn", f"{path}.norm")
        if widths != xception.MIDDLE:
            yield _conv("", f"blocks.{block}.shortcut.conv", bias=False)
            yield _norm("", f"blocks.{block}.shortcut.norm")
    for place in range(len(xception.LAST)):
        yield _separable(f"block14_sepconv{place + 1}", f"last.{place}")
        yield _norm(f"block14_sepconv{place + 1}_bn", f"last.{place}.norm")
    yield _dense("predictions", "head.linear")


NETWORKS: dict[str, Callable[[], Iterator[Layer]]] = {
    "keras_resnet50": _resnet50,
    "vgg16": lambda: _vgg(16),
    "vgg19": lambda: _vgg(19),
    "xception": _xception,
}
