"""Names of models."""

import pytest

from jaxres.errors import InputError
from jaxres.models import registry, resnet


def test_names_and_patterns():
    assert registry.list_models("resnet*") == [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
    ]
    assert set(registry.list_models("wide_*")) == {"wide_resnet50_2", "wide_resnet101_2"}
    assert registry.list_models("nothing*") == []
    assert set(registry.list_models("resnet*")) < set(registry.list_models())


def test_a_miss_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown model 'resnet5': did you mean 'resnet50'\?"):
        registry.create("resnet5")


def test_a_duplicate_is_refused():
    with pytest.raises(ValueError, match="two models are named 'resnet18'"):
        registry.table([*resnet.MODELS, resnet.resnet18])
