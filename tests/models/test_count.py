"""Costs from the traced program against the published ones."""

import pytest

from jaxres.models.count import ModelCost, count
from jaxres.runtime.errors import InputError


def test_resnet50():
    cost = count("resnet50")
    assert cost.gflop == pytest.approx(8.178, abs=5e-4)
    assert cost == ModelCost(
        name="resnet50",
        parameters=25_557_032,
        parameters_with_stats=25_557_032 + 2 * 26_560,
        gflop=cost.gflop,
        activations=11_114_984,
    )


def test_size_and_classes_count():
    large, small = count("resnet18", image_size=64, classes=10), count("resnet18", image_size=32)
    # 64 is twice 32 at every layer, so only the head differs from four times.
    head = 512 * (4 * 1000 - 10)
    assert large.gflop == pytest.approx(4 * small.gflop - 2 * head / 1e9)
    assert large.parameters == small.parameters - 990 * 513


def test_an_image_too_small_is_named():
    with pytest.raises(InputError, match="31 pixels; allowed for resnet18: 32 pixels"):
        count("resnet18", image_size=31)
