"""Maps of where a network looks, against networks whose answer is known."""

from types import SimpleNamespace
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxres.explain.attention import grad_cam, occlusion, predict_images
from jaxres.explain.layers import centres, choose_layer, find_layer, layer_shapes
from jaxres.models.build import network
from jaxres.models.pure import Net, abstract_net
from jaxres.runtime.errors import InputError
from tests.marked import slow

RNG = np.random.default_rng(0)


@pytest.fixture
def setting(tiny_config) -> Any:
    """Images of 32 pixels in batches of 4, of which 6 make one and a half."""
    config = tiny_config("--data.batch-size=4")
    images = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)
    return SimpleNamespace(config=config, images=images)


def linear_net(weights: np.ndarray) -> Net:
    """The image averaged onto 8x8, and its channels' means times `weights` as logits."""

    def apply(params, stats, images, *, train, key=None, frozen_norms=(), tap=None):
        n, side = images.shape[:2]
        maps = images.reshape(n, 8, side // 8, 8, side // 8, 3).mean((2, 4))
        maps = tap("body", maps) if tap else maps
        maps = tap("features", maps) if tap else maps
        return maps.mean((1, 2)) @ params["weights"], stats

    return Net({"weights": jnp.asarray(weights, jnp.float32)}, {}, apply)


def variables(net: Net) -> dict[str, Any]:
    return {"params": net.params, "stats": net.stats}


def cam(setting: Any, net: Net, classes: np.ndarray, layer: str = "", **how: Any) -> np.ndarray:
    chosen = find_layer(net, 32, layer)
    return grad_cam(net, setting.config, variables(net), setting.images, classes, chosen, **how)


def occluded(setting: Any, net: Net, images: np.ndarray, classes: np.ndarray, patch: int) -> Any:
    network = net, setting.config, variables(net)
    whole = predict_images(*network, images)
    return occlusion(*network, images, classes, whole, patch=patch)


def test_grad_cam_of_a_linear_network_is_its_class_activation_map(setting) -> None:
    # Of global average pooling and one layer the map is known (Selvaraju et al., section 3.1):
    # the class's weights times the maps, over the number of positions, after ReLU.
    weights = RNG.normal(size=(3, 5))
    net = linear_net(weights)
    classes = RNG.integers(0, 5, 6).astype(np.int32)
    found = cam(setting, net, classes)
    pooled = setting.images.reshape(6, 8, 4, 8, 4, 3).mean((2, 4)) / 255
    known = np.maximum(np.einsum("nhwc,cn->nhw", pooled, weights[:, classes]), 0) / 64
    for one, small in zip(found, known, strict=True):
        large = cv2.resize(small, (32, 32), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(one, large, atol=1e-6)
    assert known.any()
    assert (known == 0).any()


def test_grad_cam_of_another_class_is_another_map(setting) -> None:
    net = network(setting.config, classes=10)
    maps = [cam(setting, net, np.full(6, k, np.int32)) for k in (0, 1)]
    assert maps[0].shape == (6, 32, 32)
    assert maps[0].any()
    assert np.abs(maps[0] - maps[1]).max() > 1e-3 * maps[0].max()


@pytest.mark.slow
@pytest.mark.parametrize("by_position", [False, True])
def test_maps_of_an_inner_layer_are_the_gradient_there(setting, by_position: bool) -> None:
    """Against the network by hand, from its first convolution on."""
    net = network(setting.config, classes=10)
    classes = np.arange(6, dtype=np.int32)
    found = cam(setting, net, classes, "conv1", by_position=by_position)
    seen = {}

    def logits(maps: Any) -> Any:
        def tap(name: str, value: Any) -> Any:
            seen[name] = value
            return maps if name == "conv1" and maps is not None else value

        images = jnp.asarray(setting.images, jnp.float32) / 255
        return net.apply(net.params, net.stats, images, train=False, tap=tap)[0]

    logits(None)
    maps = seen["conv1"]
    gradient = jax.grad(lambda maps: logits(maps)[np.arange(6), classes].sum())(maps)
    mean = gradient.mean((1, 2), keepdims=True)
    weights = np.maximum(gradient, 0) if by_position else mean
    small = np.maximum((weights * maps).sum(-1), 0)
    assert small.shape == (6, 16, 16)
    # Position k looks at row 2k; beyond the last the map stays the same.
    rows = np.meshgrid(np.arange(32) / 2, np.arange(32) / 2, indexing="ij")
    large = [ndimage.map_coordinates(one, rows, order=1, mode="nearest") for one in small]
    np.testing.assert_allclose(found, large, atol=1e-5 * small.max())
    assert small.any()


def corner_net() -> Net:
    """Class 1 is as bright as the 8x8 pixels in the lower left corner; class 0 all else."""

    def apply(params, stats, images, *, train, key=None, frozen_norms=(), tap=None):
        bright = images[:, -8:, :8].mean((1, 2, 3))
        return jnp.stack([jnp.zeros_like(bright), 8 * (bright - 0.75)], -1), stats

    return Net({}, {}, apply)


def test_occlusion_finds_the_corner_a_network_looks_at(setting) -> None:
    net = corner_net()
    images = setting.images // 4
    images[:, -8:, :8] = 255
    classes = np.ones(6, np.int32)
    (one, *rest) = occluded(setting, net, images, classes, 4)
    # The patches, every second pixel, reach up to two pixels out of it.
    np.testing.assert_allclose(one[:22], 0, atol=1e-6)
    np.testing.assert_allclose(one[:, 10:], 0, atol=1e-6)
    assert one[-8:, :8].min() > 0.01
    np.testing.assert_allclose(rest, [one] * 5, atol=1e-6)
    against = occluded(setting, net, images, 1 - classes, 4)
    np.testing.assert_allclose(against, [-one] * 6, atol=1e-6)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("patch", [1, 5, 32])
def test_occlusion_is_the_mean_drop_of_the_patches_over_a_pixel(setting, patch: int) -> None:
    net = corner_net()
    images = setting.images[:1].copy()
    images[:, -8:, :8] |= 128
    (found,) = occluded(setting, net, images, np.ones(1, np.int32), patch)
    last = 32 - patch
    starts = sorted({*range(0, last, max(1, patch // 2)), last})
    total, times = np.zeros((32, 32)), np.zeros((32, 32))

    def probability(image: np.ndarray) -> float:
        bright = image[-8:, :8].mean() / 255
        return 1 / (1 + np.exp(-8 * (bright - 0.75)))

    for row in starts:
        for column in starts:
            place = np.s_[row : row + patch, column : column + patch]
            hidden = images[0].copy()
            hidden[place] = 128
            total[place] += probability(images[0]) - probability(hidden)
            times[place] += 1
    np.testing.assert_allclose(found, total / times, atol=1e-6)
    assert np.abs(found).max() > 1e-4


@pytest.mark.parametrize("patch", [0, -3, 33])
def test_a_patch_has_to_fit(setting, patch: int) -> None:
    net = corner_net()
    with pytest.raises(InputError, match=rf"--patch is {patch}; allowed: 1 to .* \(32\)"):
        occluded(setting, net, setting.images, np.zeros(6, np.int32), patch)


def test_layers_are_those_of_the_network_in_order() -> None:
    shapes = layer_shapes(abstract_net("resnet18", classes=10, image_size=64), 64)
    sides = {name: maps.shape[1] for name, maps in shapes.items()}
    assert sides == {
        "stem": 32, "stages.0": 16, "stages.1": 8, "stages.2": 4, "stages.3": 2, "features": 2,
    }  # fmt: skip
    assert [*sides] == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "features"]
    assert shapes["stages.1"].shape == (1, 8, 8, 128)


@pytest.mark.parametrize(
    ("name", "side", "chosen"),
    [
        ("resnet18", 224, "features"),
        ("resnet18", 64, "stages.1"),
        ("cifar_resnet20", 32, "features"),
        ("cifar_wide_resnet16_8", 32, "features"),
        ("vgg11", 224, "features"),
        ("vgg11", 64, "convs.5"),
        slow("mobilenet_v2", 64, "blocks.5"),
        ("shufflenet_v2_x0_5", 64, "stages.0"),
        slow("xception", 64, "blocks.1"),
        ("handbook_cnn", 28, "convs.4"),
    ],
)
def test_the_last_layer_that_says_where_is_chosen(name: str, side: int, chosen: str) -> None:
    shapes = layer_shapes(abstract_net(name, classes=10, image_size=side), side)
    assert choose_layer(shapes) == chosen
    assert [*shapes][-1] == "features"
    assert choose_layer(shapes, "features") == "features"


@pytest.mark.parametrize(
    ("name", "layer", "side", "first", "step"),
    [
        ("resnet18", "stages.1", 64, 0, 8),  # every stride begins at the first pixel
        slow("resnet18", "features", 224, 0, 32),
        ("cifar_resnet20", "features", 32, 0, 4),
        ("vgg11", "convs.5", 64, 3.5, 8),  # strides by pooling, over the middle of their windows
        slow("mobilenet_v2", "blocks.5", 64, 0, 8),
        ("handbook_cnn", "convs.4", 28, 1.5, 4),
    ],
)
def test_positions_look_at_the_middle_of_what_they_see(
    name: str, layer: str, side: int, first: float, step: float
) -> None:
    net = abstract_net(name, classes=10, image_size=side, dtype=jnp.bfloat16)
    found = centres(net, side, layer)
    # The outermost ones see the padding too.
    np.testing.assert_allclose(found, first + step * np.arange(len(found)), atol=step / 8)
    np.testing.assert_allclose(found[1:-1], first + step * np.arange(len(found))[1:-1], atol=1e-2)


@pytest.mark.parametrize(
    "name",
    [
        slow("keras_resnet50"),
        slow("shufflenet_v2_x0_5"),
        slow("xception"),
        slow("cifar_wide_resnet16_8"),
        "all_cnn_small",
        "two_conv_cnn",
    ],
)
def test_positions_lie_in_order_within_the_image(name: str) -> None:
    net = abstract_net(name, classes=10, image_size=64)
    found = centres(net, 64, choose_layer(layer_shapes(net, 64)))
    assert np.all(np.diff(found) > 0)
    assert -0.5 <= found[0] < found[-1] <= 63.5


def test_positions_that_look_at_the_same_place_share_it(setting) -> None:
    # As those of VGG, which spreads small maps over 7x7.
    weights = RNG.normal(size=(16, 16, 3, 5))

    def apply(params, stats, images, *, train, key=None, frozen_norms=(), tap=None):
        maps = images.reshape(len(images), 8, 4, 8, 4, 3).mean((2, 4))
        maps = maps.repeat(2, axis=1).repeat(2, axis=2)
        maps = tap("body", maps) if tap else maps
        return jnp.einsum("nijc,ijck->nk", maps, params["weights"]), stats

    net = Net({"weights": jnp.asarray(weights, jnp.float32)}, {}, apply)
    classes = RNG.integers(0, 5, 6).astype(np.int32)
    found = cam(setting, net, classes, by_position=True)
    pooled = setting.images.reshape(6, 8, 4, 8, 4, 3).mean((2, 4)) / 255
    gradient = np.moveaxis(weights[..., classes], -1, 0)
    each = np.einsum("nijc,nijc->nij", pooled.repeat(2, 1).repeat(2, 2), np.maximum(gradient, 0))
    small = each.reshape(6, 8, 2, 8, 2).mean((2, 4))
    large = [cv2.resize(one, (32, 32), interpolation=cv2.INTER_LINEAR) for one in small]
    np.testing.assert_allclose(found, large, atol=1e-5)


def shapes_of(**sides: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct((1, s, s, 4), jnp.float32) for n, s in sides.items()}


def test_layers_that_cannot_be_looked_at() -> None:
    assert choose_layer(shapes_of(a=5, b=3, features=3)) == "features"
    with pytest.raises(InputError, match="unknown layer 'stag': did you mean 'stage'"):
        choose_layer(shapes_of(stage=8, features=8), "stag")
    with pytest.raises(InputError, match=r"layer features are 1x1 .* allowed: a, b$"):
        choose_layer(shapes_of(a=5, b=3, features=1))
    with pytest.raises(InputError, match=r"allowed: --method occlusion$"):
        choose_layer(shapes_of(a=1, features=1))
    mlp = layer_shapes(abstract_net("handbook_mlp", classes=10, image_size=28), 28)
    with pytest.raises(InputError, match="fully connected"):
        choose_layer(mlp)
