"""Names and layouts of torchvision's state dicts, and of the published CIFAR ResNets."""

from pathlib import Path

import numpy as np
import pytest

from jaxres.models import registry
from jaxres.models.pure import abstract_net, flatten
from jaxres.weights import torchvision
from jaxres.weights.fit import fit
from tests.marked import networks, slow
from tests.weights import written

MODELS = [name for name in registry.list_models() if torchvision.layout(name)]

# A layer of every kind, as published files have them.
NAMES = {
    "resnet18": {
        "stem.conv.kernel": "conv1.weight",
        "stem.norm.mean": "bn1.running_mean",
        "stages.0.1.conv2.kernel": "layer1.1.conv2.weight",
        "stages.1.0.norm1.scale": "layer2.0.bn1.weight",
        "stages.1.0.shortcut.conv.kernel": "layer2.0.downsample.0.weight",
        "stages.3.0.shortcut.norm.var": "layer4.0.downsample.1.running_var",
        "head.linear.bias": "fc.bias",
    },
    "wide_resnet50_2": {"stages.2.5.norm3.bias": "layer3.5.bn3.bias"},
    "cifar_resnet110": {
        "stem.conv.kernel": "conv1.weight",
        "stem.norm.scale": "bn1.weight",
        "stages.2.17.first.conv.kernel": "layer3.17.conv1.weight",
        "stages.2.17.second.norm.var": "layer3.17.bn2.running_var",
        "head.linear.kernel": "linear.weight",
    },
    "vgg11": {
        "convs.0.bias": "features.0.bias",
        "convs.1.kernel": "features.3.weight",
        "convs.7.kernel": "features.18.weight",
        "head.dense.0.kernel": "classifier.0.weight",
        "head.dense.1.bias": "classifier.3.bias",
        "head.linear.kernel": "classifier.6.weight",
    },
    "vgg16_bn": {
        "convs.0.conv.kernel": "features.0.weight",
        "convs.1.norm.mean": "features.4.running_mean",
        "convs.2.conv.bias": "features.7.bias",
        "convs.12.norm.scale": "features.41.weight",
    },
    "mobilenet_v2": {
        "stem.norm.bias": "features.0.1.bias",
        "blocks.0.depthwise.conv.kernel": "features.1.conv.0.0.weight",
        "blocks.0.project.conv.kernel": "features.1.conv.1.weight",
        "blocks.0.project.norm.mean": "features.1.conv.2.running_mean",
        "blocks.16.expand.norm.scale": "features.17.conv.0.1.weight",
        "blocks.16.depthwise.conv.kernel": "features.17.conv.1.0.weight",
        "blocks.16.project.norm.var": "features.17.conv.3.running_var",
        "last.conv.kernel": "features.18.0.weight",
        "head.linear.kernel": "classifier.1.weight",
    },
    "shufflenet_v2_x1_0": {
        "stem.conv.kernel": "conv1.0.weight",
        "stages.0.0.shortcut.depthwise.conv.kernel": "stage2.0.branch1.0.weight",
        "stages.0.0.shortcut.last.norm.var": "stage2.0.branch1.3.running_var",
        "stages.1.7.branch.first.norm.bias": "stage3.7.branch2.1.bias",
        "stages.1.7.branch.depthwise.conv.kernel": "stage3.7.branch2.3.weight",
        "stages.2.3.branch.last.norm.mean": "stage4.3.branch2.6.running_mean",
        "last.norm.scale": "conv5.1.weight",
        "head.linear.bias": "fc.bias",
    },
}


@pytest.mark.parametrize("model", NAMES)
def test_names_are_the_published_ones(model: str):
    layout = torchvision.layout(model)
    assert layout is not None
    assert {name: layout.theirs(name) for name in NAMES[model]} == NAMES[model]


@pytest.mark.parametrize(
    "model",
    networks(MODELS),
)
def test_every_array_has_a_name_of_its_own(model: str):
    net = abstract_net(model, classes=10, image_size=32)
    ours = [*flatten(net.params), *flatten(net.stats)]
    layout = torchvision.layout(model)
    assert layout is not None
    assert len({layout.theirs(name) for name in ours}) == len(ours)


def test_flattened_maps_change_their_order():
    """Their 512x7x7 and our 7x7x512 maps reach the same dense layer."""
    layout = torchvision.layout("vgg11")
    assert layout is not None
    random = np.random.default_rng(0)
    maps = random.standard_normal((7, 7, 512), np.float32)
    theirs = random.standard_normal((3, 512 * 7 * 7), np.float32)
    ours = layout.translate("head.dense.0.kernel", theirs)
    wanted = theirs.astype(float) @ maps.transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(maps.ravel() @ ours.astype(float), wanted, rtol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        "resnet18",
        "mobilenet_v2",
        "shufflenet_v2_x0_5",
        "cifar_resnet20",
        slow("cifar_resnet56"),
    ],
)
@pytest.mark.parametrize("in_zip", [True, False])
def test_weights_come_back_bit_by_bit(tmp_path: Path, model: str, in_zip: bool):
    ours = written.random_weights(model)
    path = written.save_torch(
        tmp_path / "w.pth", written.as_torchvision(model, ours), in_zip=in_zip
    )
    fitted = fit(path, model)
    assert (fitted.classes, fitted.new_head, fitted.format) == (10, False, "pytorch")
    assert fitted.inputs == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    found = {**flatten(fitted.params), **flatten(fitted.stats)}
    assert found.keys() == ours.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture
def models(torchvision_package):
    return torchvision_package.models


@pytest.mark.reference
@pytest.mark.parametrize("model", [name for name in MODELS if not name.startswith("cifar_")])
def test_torchvision_has_the_same_names_and_shapes(models, model: str):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        theirs = models.get_model(model, num_classes=10).state_dict()
    counted = {
        name: tuple(t.shape) for name, t in theirs.items() if torchvision.COUNTER not in name
    }
    net = abstract_net(model, classes=10, image_size=32)
    ours = {**flatten(net.params), **flatten(net.stats)}
    layout = torchvision.layout(model)
    assert layout is not None
    shapes = {}
    for name, leaf in ours.items():
        shape = leaf.shape
        moved = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        shapes[layout.theirs(name)] = moved
    assert shapes == counted


@pytest.mark.reference
@pytest.mark.parametrize(
    "model",
    ["resnet18", "resnet50", "vgg11", "vgg11_bn", "mobilenet_v2", "shufflenet_v2_x0_5"],
)
def test_imported_weights_give_torchvisions_logits(models, model: str, tmp_path: Path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = models.get_model(model, num_classes=10).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for values in (part.weight.data, part.running_var):
                values.uniform_(0.5, 1.5)
            for values in (part.bias.data, part.running_mean):
                values.uniform_(-0.5, 0.5)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    fitted = fit(tmp_path / "w.pth", model)
    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3), np.float32)
    with torch.no_grad():
        wanted = module(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    written.assert_close(written.logits(model, fitted, images), wanted)
