"""torchvision's residual networks written with torch modules, for where it cannot be imported."""

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from benchmarks.peers.resnets import Residual


def conv(channels: int, features: int, window: int, stride: int) -> nn.Conv2d:
    """A convolution without bias, padded on every side alike."""
    return nn.Conv2d(channels, features, window, stride, padding=window // 2, bias=False)


class Block(nn.Module):
    """Convolutions, each normalised, and a shortcut; the stride is in the first 3x3."""

    def __init__(self, channels: int, width: int, stride: int, variant: Residual):
        super().__init__()
        inner = width * variant.width_factor
        if variant.bottleneck:
            features = 4 * width
            sizes = [(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, features, 1, 1)]
        else:
            features = width
            sizes = [(channels, inner, 3, stride), (inner, features, 3, 1)]
        layers = []
        for size in sizes:
            layers += [conv(*size), nn.BatchNorm2d(size[1]), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(*layers[:-1])
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride > 1 or channels != features:
            self.shortcut = nn.Sequential(
                conv(channels, features, 1, stride), nn.BatchNorm2d(features)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Add the residual to the shortcut, then apply ReLU."""
        kept = images if self.shortcut is None else self.shortcut(images)
        residual = self.residual(images)
        residual += kept
        return self.relu(residual)


def resnet(variant: Residual, classes: int) -> nn.Module:
    """Stem, four stages of blocks, the average over positions and a linear layer."""
    layers = [
        conv(3, 64, 7, 2),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    channels = 64
    for stage, depth in enumerate(variant.depths):
        width = 64 * 2**stage
        for place in range(depth):
            stride = 2 if stage > 0 and place == 0 else 1
            layers.append(Block(channels, width, stride, variant))
            channels = 4 * width if variant.bottleneck else width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    network = nn.Sequential(*layers, *head)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
