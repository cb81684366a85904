"""Ours against what independent implementations computed when they were at hand."""

import json
from typing import Any

import numpy as np
import pytest

from jaxres.ops.conv import force_lowering
from tests.marked import slow
from tests.models import cases, drawn, golden
from tests.models.cases import FAMILIES, GRADIENTS, LOGITS, Case

# Families whose gradients in float64 take longest to compile.
TAKES_LONG = {
    "keras_resnet50",
    "vgg16",
    "vgg11_bn",
    "xception",
    "resnet50",
    "cifar_wide_resnet16_8",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
    "simple_cnn",
    "two_conv_cnn",
}


def wanted(case: Case) -> dict[str, Any]:
    """What the independent implementation gave."""
    return json.loads(golden.path(case).read_text())


# Every lowering has tests of its own. These are quick both to compile and to run.
@pytest.mark.parametrize("case", FAMILIES, ids=str)
def test_logits_are_those_of_the_golden_file(case: Case):
    with force_lowering("xla"):
        found = cases.logits(case, drawn.weights(case.net()))
    logits = np.asarray(wanted(case)["logits"])
    assert np.abs(found - logits).max() < LOGITS * np.abs(logits).max()


@pytest.mark.parametrize(
    "case",
    [slow(case) if case.model in TAKES_LONG else case for case in FAMILIES],
    ids=str,
)
def test_gradients_are_those_of_the_golden_file(case: Case):
    with force_lowering("patches"):
        found = golden.of_gradients(cases.gradients(case, drawn.weights(case.net())))
    gradients = wanted(case)["gradients"]
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        tolerance = GRADIENTS * gradient["norm"]
        assert found[name] == pytest.approx(gradient, rel=0, abs=tolerance), name
