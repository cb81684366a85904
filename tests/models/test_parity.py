"""Ours against independent implementations with the same weights: torchvision, Keras, the texts."""

import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from jaxres.models import registry
from jaxres.models.pure import flatten
from jaxres.weights.fit import fit
from tests.models import cases, drawn
from tests.models.cases import (
    FAMILIES,
    GRADIENTS,
    LOGITS,
    PACKAGES,
    VARIANTS,
    WITHOUT_REFERENCE,
    ZERO,
    Case,
)
from tests.models.references import Reference, reference


def test_every_network_is_compared():
    networks = set(registry.list_models()) - {"tiny"}  # the tests' own
    compared = {case.model for case in (*FAMILIES, *VARIANTS)}
    assert compared | WITHOUT_REFERENCE == networks, "list new networks in tests/models/cases.py"


@pytest.mark.reference
@pytest.mark.parametrize("case", [*FAMILIES, *VARIANTS], ids=str)
def test_the_same_weights_give_the_same_logits_and_gradients(case: Case):
    peer = _reference(case)
    weights, images = drawn.weights(case.net()), case.images()
    theirs = peer.logits(weights, images)
    error = np.abs(cases.logits(case, weights) - theirs).max() / np.abs(theirs).max()
    assert error < LOGITS
    # Images make a difference a hundred times the tolerance and more.
    assert np.std(theirs, axis=0).mean() > 100 * LOGITS * np.abs(theirs).max()
    if case not in FAMILIES:
        return
    ours, theirs = cases.gradients(case, weights), peer.gradients(weights, images)
    assert ours.keys() == theirs.keys()
    wrong = {
        name: np.linalg.norm(ours[name] - wanted) / np.linalg.norm(wanted)
        for name, wanted in theirs.items()
        if np.linalg.norm(ours[name] - wanted) > GRADIENTS * (np.linalg.norm(wanted) + ZERO)
    }
    assert not wrong


@pytest.mark.reference
def test_published_weights_give_the_same_logits(original: Callable[[str], pathlib.Path]):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from tests.models.references.from_studies import CifarResNet

    file = original("weights") / "resnet20-12fca82f.th"
    case = Case("cifar_resnet20", 32, "from_studies")
    fitted = fit(file, case.model)
    ours = cases.logits(case, flatten(fitted.params) | flatten(fitted.stats))
    module = CifarResNet(20)
    state = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]
    state = {name.removeprefix("module."): values for name, values in state.items()}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    images = torch.from_numpy(case.images()).permute(0, 3, 1, 2)
    with torch.no_grad():
        theirs = module.eval()(images).numpy()
    assert np.abs(ours - theirs).max() < LOGITS * np.abs(theirs).max()


def _reference(case: Case) -> Reference:
    for package in PACKAGES[case.source]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return reference(case)
