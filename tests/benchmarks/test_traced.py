import math

import jax.numpy as jnp
import pytest
from flax import nnx

from benchmarks.traced import convolutions
from jaxres.errors import InputError
from jaxres.models import registry
from jaxres.models.blocks import Conv
from jaxres.models.count import count
from jaxres.ops.conv import Geometry


@pytest.mark.parametrize(("name", "total"), [("resnet18", 20), ("resnet50", 53)])
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


class Grouped(nnx.Module):
    """A grouped convolution with odd padding, then a depthwise one twice."""

    def __init__(self, rngs):
        options = {"dtype": jnp.float32, "rngs": rngs}
        self.first = Conv(3, 12, 3, stride=2, padding="SAME", groups=3, **options)
        self.second = Conv(12, 12, 3, padding=1, groups=12, **options)

    def __call__(self, images, *, train, key=None):
        return self.second(self.second(self.first(images))).mean((1, 2))


def test_groups_padding_and_repeats_are_read(monkeypatch):
    def grouped(*, classes, image_size, dtype, rngs):
        return Grouped(rngs)

    monkeypatch.setitem(registry._MODELS, "grouped", grouped)
    (first, once), (second, twice) = convolutions("grouped", 8, 4).items()
    assert (once, twice) == (1, 2)
    assert (first.groups, first.channels, first.padding) == (3, 3, ((0, 1), (0, 1)))
    assert (second.groups, second.size, second.depthwise) == (12, (4, 4), True)


def test_unknown_models_are_refused():
    with pytest.raises(InputError, match="did you mean 'resnet18'"):
        convolutions("resnet19", 64, 1)
