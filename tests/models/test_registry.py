"""Names of models, and what every network has to be able to do."""

import pytest

from jaxres.models import registry
from jaxres.models.families import resnet
from jaxres.models.pure import abstract_net
from jaxres.runtime.errors import InputError
from tests.marked import networks


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
        abstract_net("resnet5", classes=10, image_size=32)


def test_a_duplicate_is_refused():
    again = {"resnet18": resnet.MODELS["resnet18"]}
    with pytest.raises(ValueError, match="two models are named 'resnet18'"):
        registry.merged(resnet.MODELS, again)


@pytest.mark.parametrize(
    "name",
    networks(registry.list_models()),
)
def test_an_image_too_small_is_named_and_the_smallest_is_taken(name):
    smallest = registry.smallest_image(name)
    assert smallest <= 32
    with pytest.raises(InputError, match=f"allowed for {name}: {smallest} pixels or more"):
        abstract_net(name, classes=10, image_size=smallest - 1)
    net = abstract_net(name, classes=10, image_size=smallest)
    assert net.params["head"]["linear"]["kernel"].shape[1] == 10


def test_an_option_of_other_networks_is_refused():
    with pytest.raises(InputError, match=r"model.stem is small, but vgg16 has none"):
        abstract_net("vgg16", classes=10, image_size=32, stem="small")
    with pytest.raises(InputError, match=r"model.spatial_dropout is 0.1, but resnet18 has none"):
        abstract_net("resnet18", classes=10, image_size=32, spatial_dropout=0.1)
