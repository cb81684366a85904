"""Residual networks: sizes of the published models, stems, heads and refused options."""

import jax
import jax.numpy as jnp
import pytest

from jaxres.errors import InputError
from jaxres.models.pure import abstract_net


def parameters(name, **options):
    net = abstract_net(name, **({"image_size": 224, "classes": 1000} | options))
    return sum(leaf.size for leaf in jax.tree.leaves(net.params))


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet101", 1000, 44_549_160),
        ("resnet152", 1000, 60_192_808),
        ("wide_resnet50_2", 1000, 68_883_240),
        ("wide_resnet101_2", 1000, 126_886_696),
        ("keras_resnet50", 1000, 25_583_592),
        ("resnet101", 10, 42_520_650),
        ("wide_resnet50_2", 10, 66_854_730),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, expected):
    assert parameters(name, classes=classes) == expected


@pytest.mark.parametrize(
    ("size", "stem", "side"),
    [(32, "imagenet", 1), (64, "imagenet", 2), (75, "imagenet", 3), (33, "small", 5)],
)
def test_flatten_head_reads_every_position(size, stem, side):
    options = {"image_size": size, "stem": stem, "head": "flatten", "classes": 10}
    net = abstract_net("resnet18", **options)
    assert net.params["head"]["linear"]["kernel"].shape == (512 * side**2, 10)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits, _ = jax.eval_shape(
        lambda *arrays: net.apply(*arrays, train=True), net.params, net.stats, images
    )
    assert logits.shape == (2, 10)


def test_parameter_names():
    params = abstract_net("resnet50", image_size=64, classes=10).params
    assert set(params) == {"stem", "stages", "head"}
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 3, 64)
    assert params["stages"]["0"]["1"]["conv2"]["kernel"].shape == (3, 3, 64, 64)
    assert params["stages"]["3"]["0"]["shortcut"]["conv"]["kernel"].shape == (1, 1, 1024, 2048)
    assert "shortcut" not in params["stages"]["3"]["1"]


def test_stride_is_in_the_3x3_convolution():
    net = abstract_net("resnet50", image_size=64, classes=10)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    program = str(
        jax.make_jaxpr(lambda *arrays: net.apply(*arrays, train=False))(
            net.params, net.stats, images
        )
    )
    # The first 1x1 of stage 2 still works at 16 pixels: 256 to 128 channels.
    assert "f32[1,16,16,128]" in program


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 31}, "31 pixels; allowed for resnet18: 32 pixels or more"),
        ({"stem": "large"}, "stem is 'large'; allowed: imagenet, small"),
        ({"head": "mean"}, "head is 'mean'; allowed: average, max, flatten"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed: 0 up to, not including, 1"),
    ],
)
def test_refused_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        parameters("resnet18", **options)
