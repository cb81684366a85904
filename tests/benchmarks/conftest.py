"""The small network under its name `tiny`, and the one sentence of what is refused."""

from collections.abc import Callable

import pytest

import tests.tiny  # noqa: F401 - registers the network


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[[int], str]:
    """`refusal(status)`: what a program wrote that ended with status 2, its error in a sentence."""

    def sentence(status: int) -> str:
        said = capsys.readouterr().err
        assert status == 2
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said

    return sentence
