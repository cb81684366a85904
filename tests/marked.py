"""Cases of parametrised tests with marks."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

# Networks that are others of more blocks or channels.
LIKE_OTHERS = frozenset(
    (
        *("resnet34", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
        *("vgg13", "vgg19", "vgg13_bn", "vgg16_bn", "vgg19_bn", "shufflenet_v2_x1_0"),
        *("cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "cifar_resnet110"),
        "cifar_wide_resnet28_10",
    )
)


def slow(*values: Any) -> Any:
    """A case that only `python3 dev.py test --slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def networks(names: Iterable[str], long: Collection[str] = LIKE_OTHERS) -> list[Any]:
    """A case for each network, slow where it is one of `long`."""
    return [slow(name) if name in long else name for name in names]
