"""Networks of the studies and of papers that no library has, written in torch from their texts."""

import itertools
import re
from functools import partial

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from tests.models.cases import CLASSES, Case
from tests.models.references.torch_reference import (
    ChannelsLast,
    TorchReference,
    by_order,
    name_at,
    published_name,
)


def reference(case: Case) -> TorchReference:
    """The network of the same name."""
    if match := re.fullmatch(r"cifar_resnet(\d+)", case.model):
        return TorchReference(CifarResNet(int(match[1])), published_name(case.model))
    if match := re.fullmatch(r"cifar_wide_resnet(\d+)_(\d+)", case.model):
        module = WideResNet(int(match[1]), int(match[2]))
        return TorchReference(module, name_at(wide_resnet_path))
    module = PLAIN[case.model](case.size)
    return TorchReference(module, by_order(module))


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2: 1 + 2n + 2n + 2n convolutions of 3x3 and a linear layer.

    16, 32 and 64 filters; the size halves by strides where the filters double. The names are those
    of published checkpoints.
    """

    def __init__(self, depth: int):
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[CifarBlock(16, 16) for _ in range(n)])
        self.layer2 = nn.Sequential(CifarBlock(16, 32), *[CifarBlock(32, 32) for _ in range(n - 1)])
        self.layer3 = nn.Sequential(CifarBlock(32, 64), *[CifarBlock(64, 64) for _ in range(n - 1)])
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = functional.relu(self.bn1(self.conv1(images)))
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.linear(maps.mean((2, 3)))


class CifarBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.grows = inputs != outputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if self.grows else 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(maps)))))
        if self.grows:
            # Twice the channels: a quarter of the new number are zeros on either side.
            maps = functional.pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, *[residual.shape[1] // 4] * 2))
        return functional.relu(residual + maps)


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis 2016, table 1: 3x3 of 16, groups of 16k, 32k and 64k, average pool.

    Blocks of two 3x3, each after batch norm and ReLU; groups two and three start with stride 2.
    """

    def __init__(self, depth: int, k: int):
        super().__init__()
        n = (depth - 4) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.conv2 = wide_group(n, 16, 16 * k, 1)
        self.conv3 = wide_group(n, 16 * k, 32 * k, 2)
        self.conv4 = wide_group(n, 32 * k, 64 * k, 2)
        self.bn = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv4(self.conv3(self.conv2(self.conv1(images))))
        maps = functional.relu(self.bn(maps))
        return self.fc(functional.adaptive_avg_pool2d(maps, 1).flatten(1))


def wide_group(n: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    later = [WideBlock(outputs, outputs, 1) for _ in range(n - 1)]
    return nn.Sequential(WideBlock(inputs, outputs, stride), *later)


class WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.projection = None
        if inputs != outputs:
            self.projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        residual = self.residual(maps)
        if self.projection is not None:
            # The authors' own: the projection too reads what is normalised and rectified.
            maps = self.projection(self.residual[:2](maps))
        return maps + residual


def wide_resnet_path(ours: str) -> str:
    """The path of a wide CIFAR ResNet's layer."""
    match ours.split("."):
        case ["stages", stage, block, "shortcut"]:
            return f"conv{int(stage) + 2}.{block}.projection"
        case ["stages", stage, block, layer]:
            place = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 5}[layer]
            return f"conv{int(stage) + 2}.{block}.residual.{place}"
        case _:
            return {"stem": "conv1", "norm": "bn", "head.linear": "fc"}[ours]


def conv(inputs: int, outputs: int, window: int = 3) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, window, padding="same"), nn.ReLU()]


def conv_norm(inputs: int, outputs: int) -> list[nn.Module]:
    """Batch norm before ReLU makes a bias useless."""
    same = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
    return [same, nn.BatchNorm2d(outputs), nn.ReLU()]


def dense(*sizes: int) -> list[nn.Module]:
    """Rectified, each followed by dropout."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout()]
    return layers


def flatten() -> list[nn.Module]:
    return [ChannelsLast(), nn.Flatten()]


def pool() -> nn.Module:
    return nn.MaxPool2d(2)


def two_conv_cnn(size: int) -> nn.Module:
    """Study S3's baseline of two convolutions; the rest is our reading."""
    features = 64 * (size // 2 // 2) ** 2
    return nn.Sequential(
        *conv(3, 32), pool(), *conv(32, 64), pool(), *flatten(), *dense(features, 128),
        nn.Linear(128, CLASSES),
    )  # fmt: skip


def simple_cnn(size: int) -> nn.Module:
    """Study S4: conv32-conv32-pool-conv64-conv64-pool-dense1024-10."""
    return nn.Sequential(
        *conv(3, 32), *conv(32, 32), pool(),
        *conv(32, 64), *conv(64, 64), pool(),
        *flatten(), *dense(64 * (size // 2 // 2) ** 2, 1024), nn.Linear(1024, CLASSES),
    )  # fmt: skip


def de_novo_cnn(size: int) -> nn.Module:
    """Study S4: blocks of 3, 2 and 2 convolutions, dense 512 with batch norm."""
    return nn.Sequential(
        *conv_norm(3, 64), *conv_norm(64, 64), *conv_norm(64, 64), pool(), nn.Dropout2d(),
        *conv_norm(64, 128), *conv_norm(128, 128), pool(), nn.Dropout2d(),
        *conv_norm(128, 256), *conv_norm(256, 256), pool(), nn.Dropout(),
        *flatten(),
        nn.Linear(256 * (size // 2 // 2 // 2) ** 2, 512), nn.BatchNorm1d(512), nn.ReLU(),
        nn.Dropout(), nn.Linear(512, CLASSES),
    )  # fmt: skip


def handbook_cnn(size: int) -> nn.Module:
    """Study S5: conv 64 7x7, then pairs of 128 and 256, dense 128 and 64."""
    return nn.Sequential(
        *conv(3, 64, 7), pool(),
        *conv(64, 128), *conv(128, 128), pool(),
        *conv(128, 256), *conv(256, 256), pool(),
        *flatten(), *dense(256 * (size // 2 // 2 // 2) ** 2, 128, 64), nn.Linear(64, CLASSES),
    )  # fmt: skip


def handbook_mlp(size: int) -> nn.Module:
    """Study S5's fully connected net; its widths are our reading."""
    return nn.Sequential(*flatten(), *dense(3 * size**2, 300, 100), nn.Linear(100, CLASSES))


def all_cnn_small(size: int) -> nn.Module:
    """Springenberg et al. 2015: strides in the place of pooling."""
    layer = partial(nn.Conv2d, bias=False)
    side = -(-size // 4)
    return nn.Sequential(
        layer(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU(),
        layer(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
        layer(64, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
        *flatten(), nn.Linear(64 * side**2, CLASSES),
    )  # fmt: skip


PLAIN = {
    made.__name__: made
    for made in (two_conv_cnn, simple_cnn, de_novo_cnn, handbook_cnn, handbook_mlp, all_cnn_small)
}
