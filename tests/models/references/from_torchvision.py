"""The networks of torchvision."""

import torch  # pyright: ignore[reportMissingImports]

from benchmarks.peers import vision
from tests.models.cases import CLASSES, Case
from tests.models.references.torch_reference import ChannelsLast, TorchReference, published_name

torchvision = vision.load()


def reference(case: Case) -> TorchReference:
    """The network of the same name; a ResNet with the stem and the head asked for."""
    with torch.device("meta"):
        module = torchvision.models.get_model(case.model, num_classes=CLASSES)
        if case.options.get("stem") == "small":
            module.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
            module.maxpool = torch.nn.Identity()
        if case.options.get("head") == "max":
            module.avgpool = torch.nn.AdaptiveMaxPool2d(1)
        if case.model.startswith("vgg"):
            module.avgpool = torch.nn.Sequential(module.avgpool, ChannelsLast())
    return TorchReference(module, published_name(case.model))
