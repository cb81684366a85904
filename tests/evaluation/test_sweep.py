"""`evaluate --sweep`: one checkpoint with each of several values of a data setting."""

import json
import pathlib

import pytest

from jaxres.cli.main import main
from jaxres.evaluation import run
from jaxres.runtime import compilation
from jaxres.runtime.errors import InputError
from tests.marked import slow


@pytest.mark.parametrize(
    ("setting", "values", "networks"),
    [
        ("data.digit_side", ["8", "24"], 1),
        slow("data.divisor", ["255", "256"], 2),
    ],
)
def test_each_value_gives_what_an_evaluation_with_it_gives(
    setting: str,
    values: list[str],
    networks: int,
    runs: list[pathlib.Path],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
) -> None:
    output = tmp_path / "sweep.json"
    words = ["evaluate", str(runs[0]), "--sweep", setting, *values]
    with compilation.watch() as programs:
        assert main([*words, "-o", str(output)]) == 0
    assert [program.name for program in programs].count("jit(step)") == networks
    found = json.loads(output.read_text())
    assert found["sweep"] == setting
    assert found["command"] == f"jaxres {' '.join(words)} -o {output}"
    assert found["dataset"] == "digits"
    assert [row["value"] for row in found["results"]] == values
    said = capsys.readouterr().out
    assert said.splitlines()[0].split() == [setting, "accuracy", "loss", "examples"]
    for row in found["results"]:
        alone = run.evaluate(runs[0], flags=[f"--{setting}", row["value"]])
        assert {key: alone[key] for key in ("accuracy", "loss", "examples")} == {
            key: row[key] for key in ("accuracy", "loss", "examples")
        }
        assert f"{alone['accuracy']:.4f}" in said
    losses = [row["loss"] for row in found["results"]]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("words", "flags", "problem"),
    [
        (["data.digit_side"], [], "allowed: a setting data.KEY and one value or several"),
        (["model.name", "resnet18"], [], "allowed: a setting data.KEY and one value or several"),
        (["data.digit_seid", "8"], [], "did you mean"),
        (["data.digit_side", "24", "33"], [], "data.digit_side has 33; allowed: 8 to"),
        (["data.digit_side", "8"], ["--data.digit-side-range", "8", "32"], "range null"),
        (["data.digit-side", "8"], ["--data.digit-side-range", "8", "32"], "range null"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_evaluated(
    runs: list[pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    flags: list[str],
    problem: str,
) -> None:
    monkeypatch.setattr(run, "open_split", None)
    with pytest.raises(InputError, match=problem):
        run.sweep(runs[0], words, flags=flags)


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_evaluated(
    runs: list[pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "evaluate", None)
    assert main(["evaluate", str(runs[0]), "-o", str(tmp_path / "none" / "e.json")]) == 2
