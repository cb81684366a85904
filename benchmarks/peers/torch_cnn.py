"""The studies' plain networks written with torch modules, from the tables of ours."""

from torch import nn  # pyright: ignore[reportMissingImports]

from jaxres.models.families.cnn import MODELS
from jaxres.models.sequential import ConvLayer, Dropout, MaxPool, SpatialDropout


def network(name: str, image_size: int, classes: int) -> nn.Sequential:
    """The network of this name, its ReLUs in place."""
    described = MODELS[name]
    table = described.args[0]
    options = described.keywords
    layers: list[nn.Module] = []
    channels, size = 3, image_size
    for layer in table:
        match layer:
            case ConvLayer(features, window, stride, norm, bias):
                layers.append(
                    nn.Conv2d(channels, features, window, stride, padding=window // 2, bias=bias)
                )
                layers += [nn.BatchNorm2d(features)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                channels, size = features, -(-size // stride)
            case MaxPool():
                layers.append(nn.MaxPool2d(2))
                size //= 2
            case SpatialDropout(rate):
                layers.append(nn.Dropout2d(rate))
            case Dropout(rate):
                layers.append(nn.Dropout(rate))
    layers.append(nn.Flatten())
    inputs = channels * size**2
    for outputs in options.get("dense", ()):
        layers.append(nn.Linear(inputs, outputs))
        layers += [nn.BatchNorm1d(outputs)] if options.get("dense_norm") else []
        layers += [nn.ReLU(inplace=True), nn.Dropout(options.get("dropout", 0.0))]
        inputs = outputs
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
