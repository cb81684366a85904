"""Filters against OpenCV, pooling against NumPy."""

import cv2
import jax
import numpy as np
import pytest

from jaxres.explain.filters import (
    KERNELS,
    filtered,
    first_kernel,
    kernel_images,
    kernel_of,
    pooled,
)
from jaxres.models.pure import abstract_net, flatten
from jaxres.ops import conv
from jaxres.runtime.errors import InputError

RNG = np.random.default_rng(0)
IMAGE = cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (40, 31))


@pytest.mark.parametrize("name", KERNELS)
def test_filters_are_opencvs(name: str) -> None:
    image = np.asarray(IMAGE)
    found = filtered(image, kernel_of(name))
    np.testing.assert_array_equal(found, cv2.filter2D(image, -1, kernel_of(name)))
    assert (found != image).any()


def test_filters_are_computed_by_the_networks_convolution() -> None:
    with (
        conv.force_lowering("winograd"),  # which has no groups
        pytest.raises(ValueError, match="lowering 'winograd' cannot express"),
    ):
        filtered(np.asarray(IMAGE), kernel_of("edge"))


def test_an_edge_filter_sees_nothing_where_nothing_changes() -> None:
    flat = np.full((9, 9, 3), 77, np.uint8)
    for name, wanted in [("edge", 0), ("vertical edge (Sobel)", 0), ("sharpen", 77), ("blur", 77)]:
        np.testing.assert_array_equal(filtered(flat, kernel_of(name)), np.full_like(flat, wanted))


@pytest.mark.parametrize("size", [2, 3, 16])
def test_pooling_is_numpys(size: int) -> None:
    found = pooled(np.asarray(IMAGE), size)
    rows, columns = 31 // size, 40 // size
    whole = np.asarray(IMAGE)[: rows * size, : columns * size]
    windows = whole.reshape(rows, size, columns, size, 3)
    np.testing.assert_array_equal(found["max"], windows.max((1, 3)))
    np.testing.assert_allclose(found["average"], windows.mean((1, 3)), atol=0.5001)
    largest = np.asarray(IMAGE).max(2)
    np.testing.assert_array_equal(found["depthwise"], np.stack([largest] * 3, axis=-1))


@pytest.mark.parametrize(("size", "side"), [(-1, 31), (0, 31), (1, 31), (17, 31), (9, 8)])
def test_a_window_has_to_fit(size: int, side: int) -> None:
    image = np.asarray(IMAGE)[:side]
    with pytest.raises(InputError, match=rf"--size is {size}; allowed here: 2 to {min(side, 16)}$"):
        pooled(image, size)


def test_the_first_kernel_is_the_one_that_reads_colours() -> None:
    kernels = {
        "resnet18": ("stem.conv.kernel", 64),
        "xception": ("stem.0.conv.kernel", 32),
        "vgg11": ("convs.0.kernel", 64),
        "cifar_wide_resnet16_8": ("stem.kernel", 16),
    }
    for model, (name, count) in kernels.items():
        shapes = abstract_net(model, classes=10, image_size=64).params
        assert [key for key, leaf in _colours(shapes)] == [name]
        params = _zeros(shapes)
        assert first_kernel(params)[0] == name
        assert first_kernel(params)[1].shape[-1] == count
    with pytest.raises(InputError, match="fully connected"):
        first_kernel(_zeros(abstract_net("handbook_mlp", classes=10, image_size=28).params))


def _colours(params):
    return [(k, v) for k, v in flatten(params).items() if v.ndim == 4 and v.shape[2] == 3]


def _zeros(shapes):
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)


def test_each_filter_is_an_image_of_its_own() -> None:
    kernel = RNG.normal(size=(5, 4, 3, 7)).astype(np.float32)
    kernel[..., 6] = 2
    found = kernel_images(kernel)
    assert found.shape == (7, 5, 4, 3)
    for k in range(6):
        own = kernel[..., k]
        wanted = 255 * (own - own.min()) / (own.max() - own.min())
        np.testing.assert_allclose(found[k], wanted, atol=0.51)
        assert (found[k].min(), found[k].max()) == (0, 255)
    assert not found[6].any()
