"""Names, order and layouts of keras.applications' weights in Keras's three formats."""

from pathlib import Path

import chex
import numpy as np
import pytest

from jaxres.models.pure import abstract_net, flatten
from jaxres.weights import keras
from jaxres.weights.fit import Fitted, fit
from tests.marked import slow
from tests.weights import keras_files, written

CAFFE = ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3)
INPUTS = {"keras_resnet50": CAFFE, "xception": ((0.5,) * 3, (0.5,) * 3)}
WRITERS = {
    "h5": keras_files.write_h5,
    "weights.h5": keras_files.write_weights_h5,
    "keras": keras_files.write_archive,
}

# A layer of every kind by its own name, and by its class's.
NAMES = {
    "keras_resnet50": {
        "stem.conv.kernel": ("conv1_conv/0", "conv2d/0"),
        "stem.norm.scale": ("conv1_bn/0", "batch_normalization/0"),
        "stages.0.0.conv2.bias": ("conv2_block1_2_conv/1", "conv2d_2/1"),
        "stages.0.0.shortcut.conv.kernel": ("conv2_block1_0_conv/0", "conv2d_3/0"),
        "stages.0.0.conv3.kernel": ("conv2_block1_3_conv/0", "conv2d_4/0"),
        "stages.0.0.shortcut.norm.mean": ("conv2_block1_0_bn/2", "batch_normalization_3/2"),
        "stages.0.0.norm3.var": ("conv2_block1_3_bn/3", "batch_normalization_4/3"),
        "stages.3.2.norm3.bias": ("conv5_block3_3_bn/1", "batch_normalization_52/1"),
        "head.linear.bias": ("predictions/1", "dense/1"),
    },
    "vgg19": {
        "convs.0.kernel": ("block1_conv1/0", "conv2d/0"),
        "convs.15.bias": ("block5_conv4/1", "conv2d_15/1"),
        "head.dense.0.kernel": ("fc1/0", "dense/0"),
        "head.linear.kernel": ("predictions/0", "dense_2/0"),
    },
    "xception": {
        "stem.1.conv.kernel": ("block1_conv2/0", "conv2d_1/0"),
        "blocks.0.convs.0.depthwise.kernel": ("block2_sepconv1/0", "separable_conv2d/0"),
        "blocks.0.convs.1.pointwise.kernel": ("block2_sepconv2/1", "separable_conv2d_1/1"),
        "blocks.0.shortcut.conv.kernel": ("conv2d_6/0", "conv2d_2/0"),
        "blocks.11.shortcut.norm.var": ("batch_normalization_9/3", "batch_normalization_37/3"),
        "blocks.11.convs.1.norm.scale": ("block13_sepconv2_bn/0", "batch_normalization_36/0"),
        "last.1.norm.mean": ("block14_sepconv2_bn/2", "batch_normalization_39/2"),
        "head.linear.bias": ("predictions/1", "dense/1"),
    },
}
# Keras numbers them as they are made; here other models were made before.
NAMELESS = [f"{layer}_{k}" for k in range(6, 10) for layer in ("conv2d", "batch_normalization")]


@pytest.mark.parametrize("model", NAMES)
def test_names_are_the_published_ones(model: str):
    there = [f"{layer}/0" for layer in NAMELESS] if model == "xception" else []
    there += [f"{layer.name}/0" for layer in keras.NETWORKS[model]() if layer.name]
    for named in (True, False):
        layout = keras.layout(model, there, named=named, published=True)
        assert layout is not None
        wanted = {ours: names[0 if named else 1] for ours, names in NAMES[model].items()}
        assert {ours: layout.theirs(ours) for ours in wanted} == wanted


@pytest.mark.parametrize("model", keras.NETWORKS)
def test_every_array_has_a_name_of_its_own(model: str):
    net = abstract_net(model, classes=10, image_size=32)
    ours = {*flatten(net.params), *flatten(net.stats)}
    layers = [*keras.NETWORKS[model]()]
    assert {name for layer in layers for name in layer.ours} == ours
    assert sum(len(layer.ours) for layer in layers) == len(ours)
    names = [layer.name for layer in layers if layer.name]
    assert len({*names}) == len(names)


def assert_same(fitted: Fitted, ours: written.Arrays) -> None:
    found = {**flatten(fitted.params), **flatten(fitted.stats)}
    chex.assert_trees_all_equal(found, dict(ours))


@pytest.mark.parametrize(
    ("model", "suffix"),
    [
        ("keras_resnet50", "h5"),
        ("xception", "keras"),
        *(
            slow(*each)
            for each in (
                ("keras_resnet50", "weights.h5"),
                ("keras_resnet50", "keras"),
                ("xception", "h5"),
                ("xception", "weights.h5"),
            )
        ),
    ],
)
def test_weights_come_back_bit_by_bit(tmp_path: Path, model: str, suffix: str):
    ours = written.random_weights(model)
    layers = written.as_keras(model, ours, named=suffix == "h5")
    fitted = fit(WRITERS[suffix](tmp_path / f"w.{suffix}", layers), model)
    assert (fitted.classes, fitted.new_head, fitted.inputs) == (10, False, INPUTS[model])
    assert fitted.format == ("keras_h5" if suffix == "h5" else "keras_3")
    assert_same(fitted, ours)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [slow("h5"), "weights.h5"])
def test_heads_may_be_named_otherwise_or_missing(tmp_path: Path, suffix: str):
    ours = written.random_weights("xception", classes=5)
    layers = written.as_keras("xception", ours, named=suffix == "h5")
    *body, head = layers
    mine = {name: layers[name] for name in body}
    path = tmp_path / f"w.{suffix}"
    if suffix == "h5":
        assert_same(fit(WRITERS[suffix](path, {**mine, "top": layers[head]}), "xception"), ours)
    fitted = fit(WRITERS[suffix](path, mine), "xception", classes=7)
    assert (fitted.classes, fitted.new_head) == (7, True)
    kernel = fitted.params["head"]["linear"].pop("kernel")
    assert kernel.shape == (2048, 7)
    assert kernel.std() > 0
    del fitted.params["head"], ours["head.linear.kernel"], ours["head.linear.bias"]
    assert_same(fitted, ours)


@pytest.mark.slow
def test_kernels_of_own_networks_are_for_red_green_and_blue(tmp_path: Path):
    ours = written.random_weights("keras_resnet50")
    layers = written.as_keras("keras_resnet50", ours, named=True)
    path = keras_files.write_h5(tmp_path / "w.h5", layers)
    fitted = fit(path, "keras_resnet50", published=False)
    kernel = fitted.params["stem"]["conv"].pop("kernel")
    np.testing.assert_array_equal(kernel, ours.pop("stem.conv.kernel")[:, :, ::-1])
    assert_same(fitted, ours)


@pytest.fixture(scope="module")
def library():
    # Importing keras itself first would choose its backend.
    peer = pytest.importorskip("benchmarks.peers.keras_step", reason="keras is not installed")
    return peer.keras


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own, of NumPy
@pytest.mark.parametrize(
    ("model", "size", "suffixes"),
    [("keras_resnet50", 64, WRITERS), ("xception", 96, WRITERS), ("vgg16", 224, ["h5"])],
)
def test_imported_weights_give_keras_logits(
    library, model: str, size: int, suffixes: list[str], tmp_path: Path
):
    applications = library.applications
    build, mode = {
        "keras_resnet50": (applications.ResNet50, "caffe"),
        "xception": (applications.Xception, "tf"),
        "vgg16": (applications.VGG16, "caffe"),
    }[model]
    options = {"weights": None, "classes": 10, "classifier_activation": None}
    theirs = build(input_shape=(size, size, 3), **options)
    random = np.random.default_rng(0)
    for layer in theirs.layers:
        if "batch_normalization" in layer.name or layer.name.endswith("_bn"):
            low = (0.5, -0.5, -0.5, 0.5)  # gamma, beta, moving mean, moving variance
            layer.set_weights(
                [
                    random.uniform(x, x + 1, w.shape)
                    for x, w in zip(low, layer.get_weights(), strict=True)
                ]
            )
    images = random.integers(0, 256, (2, size, size, 3)).astype(np.float32)
    prepared = applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
    wanted = np.asarray(theirs(prepared, training=False))
    for suffix in suffixes:
        path = tmp_path / f"w.{suffix}"
        (theirs.save_weights if suffix == "weights.h5" else theirs.save)(path)
        fitted = fit(path, model)
        mean, std = np.asarray(fitted.inputs, np.float32)
        normalised = (images / 255 - mean) / std
        written.assert_close(written.logits(model, fitted, normalised), wanted)
