import math
from functools import partial

import jax
import pytest

from benchmarks.convolutions.bound import flop_of
from benchmarks.convolutions.traced import convolutions, first_layer_flop
from jaxres.models import registry
from jaxres.models.blocks import Conv
from jaxres.models.count import count
from jaxres.models.network import Head, Network
from jaxres.models.pure import abstract_net
from jaxres.ops.conv import Geometry
from jaxres.runtime.errors import InputError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "total"),
    [("resnet18", 20), ("resnet50", 53), ("mobilenet_v2", 52), ("handbook_mlp", 0)],
)
def test_every_convolution_is_counted(name, total):
    assert sum(convolutions(name, 64, 2).values()) == total


def test_the_first_is_the_stem():
    stem = next(iter(convolutions("resnet18", 224, 16, "bfloat16")))
    assert stem == Geometry(
        batch=16,
        size=(224, 224),
        channels=3,
        kernel=(7, 7),
        features=64,
        stride=(2, 2),
        padding=((3, 3), (3, 3)),
        groups=1,
        dtype="bfloat16",
    )


def test_options_reach_the_model():
    stem = next(iter(convolutions("resnet18", 32, 1, stem="small")))
    assert (stem.kernel, stem.stride) == ((3, 3), (1, 1))


def test_geometry_gives_the_arithmetic_that_is_counted():
    """The convolutions' FLOP and the last layer's are the model's."""
    flop = sum(
        2 * math.prod((*each.output_size, *each.kernel, each.channels, each.features)) * times
        for each, times in convolutions("resnet50", 96, 1).items()
    )
    assert flop + 2 * 2048 * 1000 == round(count("resnet50", image_size=96).gflop * 1e9)


def test_the_layer_that_reads_the_images_is_a_convolution_or_a_product():
    stem = next(iter(convolutions("resnet18", 64, 1)))
    assert first_layer_flop("resnet18", 64) == flop_of(stem) == 2 * 32 * 32 * 64 * 7 * 7 * 3
    kernels = [leaf for leaf in _kernels("handbook_mlp") if leaf.shape[0] == 28 * 28 * 3]
    assert [first_layer_flop("handbook_mlp", 28)] == [2 * kernel.size for kernel in kernels]


def _kernels(name):
    return jax.tree.leaves(abstract_net(name, classes=10, image_size=28).params)


class Grouped(Network):
    """A grouped convolution with odd padding, then a depthwise one twice."""

    smallest_image = 8

    def __init__(self, options, *, rngs):
        layer = partial(Conv, dtype=options.dtype, rngs=rngs)
        self.first = layer(3, 12, 3, stride=2, padding="SAME", groups=3)
        self.second = layer(12, 12, 3, padding=1, groups=12)
        self.head = Head(12, 4, options, rngs=rngs)

    def features(self, images, *, train, key=None):
        """The last feature maps."""
        return self.second(self.second(self.first(images)))


def test_groups_padding_and_repeats_are_read(monkeypatch):
    monkeypatch.setitem(registry._MODELS, "grouped", partial(Grouped))
    (first, once), (second, twice) = convolutions("grouped", 8, 4).items()
    assert (once, twice) == (1, 2)
    assert (first.groups, first.channels, first.padding) == (3, 3, ((0, 1), (0, 1)))
    assert (second.groups, second.size, second.depthwise) == (12, (4, 4), True)


def test_unknown_models_are_refused():
    with pytest.raises(InputError, match="did you mean 'resnet18'"):
        convolutions("resnet19", 64, 1)
