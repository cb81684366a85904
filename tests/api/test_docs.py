"""docs/api.md: every example, in the order of the page, but for a network that compiles at once."""

import pathlib
import re
from typing import Any

import pytest

from tests.tiny import Tiny

assert Tiny
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "api.md"


@pytest.mark.slow
def test_the_examples_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == 4
    names: dict[str, Any] = {}
    for example in examples:
        quick = example.replace('"model.name": "cifar_resnet20"', '"model.name": "tiny"')
        exec(compile(quick, str(PAGE), "exec"), names)
    assert names["result"]["examples"] == len(names["result"]["outputs"]["logits"]) == 300
    assert names["found"].probabilities.shape == (8, 10)
    assert names["gradient"].shape == (2, 64, 64, 3)
