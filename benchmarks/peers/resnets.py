"""The residual networks that peers build, as tables of sizes: those of `families/resnet.py`."""

from typing import NamedTuple


class Residual(NamedTuple):
    """Blocks of two 3x3 convolutions, or bottlenecks of 1x1, 3x3 and 1x1."""

    bottleneck: bool
    depths: tuple[int, int, int, int]
    width_factor: int = 1


RESNETS = {
    "resnet18": Residual(False, (2, 2, 2, 2)),
    "resnet34": Residual(False, (3, 4, 6, 3)),
    "resnet50": Residual(True, (3, 4, 6, 3)),
    "resnet101": Residual(True, (3, 4, 23, 3)),
    "resnet152": Residual(True, (3, 8, 36, 3)),
    "wide_resnet50_2": Residual(True, (3, 4, 6, 3), width_factor=2),
    "wide_resnet101_2": Residual(True, (3, 4, 23, 3), width_factor=2),
}
