"""Ours against what independent implementations computed when they were at hand."""

import json

import numpy as np
import pytest

from jaxres.ops.conv import force_lowering
from tests.models import cases, drawn, golden
from tests.models.cases import FAMILIES, GRADIENTS, LOGITS, Case

# Each has a smaller relative in its family.
TAKES_LONG = {
    "keras_resnet50",
    "vgg16",
    "vgg11_bn",
    "xception",
    "resnet50",
    "cifar_wide_resnet16_8",
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case.model in TAKES_LONG else ())
        for case in FAMILIES
    ],
    ids=str,
)
def test_logits_and_gradients_are_those_of_the_golden_file(case: Case):
    wanted = json.loads(golden.path(case).read_text())
    weights = drawn.weights(case.net())
    # Every lowering has tests of its own; this one is quick both to compile and to run.
    with force_lowering("patches"):
        found = golden.values(cases.logits(case, weights), cases.gradients(case, weights))
    error = np.abs(np.subtract(found["logits"], wanted["logits"])).max()
    assert error < LOGITS * np.abs(wanted["logits"]).max()
    assert found["gradients"].keys() == wanted["gradients"].keys()
    for name, gradient in wanted["gradients"].items():
        tolerance = GRADIENTS * gradient["norm"]
        assert found["gradients"][name] == pytest.approx(gradient, rel=0, abs=tolerance), name
