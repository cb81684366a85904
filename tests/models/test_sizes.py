"""Numbers of parameters: those published, and those of the studies' networks counted by hand."""

import itertools

import jax
import pytest

from jaxres.models.pure import abstract_net
from tests.marked import LIKE_OTHERS, slow

# Of 1000 classes, those of CIFAR of 10.
PUBLISHED = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "mobilenet_v2": 3_504_872,
    "shufflenet_v2_x0_5": 1_366_792,
    "shufflenet_v2_x1_0": 2_278_604,
    "xception": 22_855_952,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "cifar_wide_resnet16_8": 10_961_370,
    "cifar_wide_resnet28_10": 36_479_194,
}


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def parameters(name, **options):
    return size(abstract_net(name, **options).params)


@pytest.mark.parametrize(
    ("name", "expected"),
    [slow(*each) if each[0] in LIKE_OTHERS else each for each in PUBLISHED.items()],
)
def test_published(name, expected):
    sizes = (32, 10) if name.startswith("cifar") else (224, 1000)
    assert parameters(name, image_size=sizes[0], classes=sizes[1]) == expected


@pytest.mark.parametrize(
    ("name", "trained", "everything"),
    [("xception", 22_855_952, 22_910_480), ("keras_resnet50", 25_583_592, 25_636_712)],
)
def test_keras_counts_statistics_too(name, trained, everything):
    net = abstract_net(name, image_size=224, classes=1000)
    assert (size(net.params), size(net.params) + size(net.stats)) == (trained, everything)


def dense(*sizes):
    """Linear layers with biases."""
    return sum((i + 1) * o for i, o in itertools.pairwise(sizes))


def convs(*channels, window=3, bias=True):
    """Convolutions one after the other."""
    return sum((window**2 * i + bias) * o for i, o in itertools.pairwise(channels))


@pytest.mark.parametrize(
    ("name", "image_size", "expected"),
    [
        ("two_conv_cnn", 128, convs(3, 32, 64) + dense(32**2 * 64, 128, 10)),
        ("simple_cnn", 28, convs(3, 32, 32, 64, 64) + dense(7**2 * 64, 1024, 10)),
        (
            "de_novo_cnn",
            128,
            convs(3, 64, 64, 64, 128, 128, 256, 256, bias=False)
            + 2 * (3 * 64 + 2 * 128 + 2 * 256 + 512)
            + dense(16**2 * 256, 512, 10),
        ),
        (
            "handbook_cnn",
            28,
            convs(3, 64, window=7) + convs(64, 128, 128, 256, 256) + dense(3**2 * 256, 128, 64, 10),
        ),
        ("handbook_mlp", 28, dense(28**2 * 3, 300, 100, 10)),
    ],
)
def test_the_studies_networks(name, image_size, expected):
    assert parameters(name, image_size=image_size, classes=10) == expected


def test_the_transfer_head_on_vgg16():
    head = {"head": "flatten", "dense": (1024, 1024), "dropout": 0.5}
    body = 14_714_688  # as published of Keras's without top
    expected = body + dense(4**2 * 512, 1024, 1024, 10)
    assert parameters("vgg16", image_size=128, classes=10, **head) == expected
