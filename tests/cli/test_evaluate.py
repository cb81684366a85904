"""`jaxres evaluate` of several checkpoints, with outputs by example and metrics of one's own."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest

import jaxres
from jaxres.cli.main import main
from jaxres.evaluation import metrics


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["evaluate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_several_runs_are_one_table(
    runs: list[pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run) for run in runs[:2]]
    rows = told(capsys, *words)["results"]
    assert [row["run_dir"] for row in rows] == words
    for row, run in zip(rows, words, strict=True):
        alone = told(capsys, run)
        assert alone["accuracy"] == row["accuracy"]
        assert alone["calibration_error"] == row["calibration_error"]
    assert main(["evaluate", *words]) == 0
    table = capsys.readouterr().out
    assert "calibration" in table
    assert f"{rows[0]['accuracy']:.4f}" in table


def test_all_checkpoints_of_a_run(
    runs: list[pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = told(capsys, str(runs[0]), "--checkpoint", "all")["results"]
    there = sorted(int(each.name) for each in (runs[0] / "checkpoints").iterdir() if each.is_dir())
    assert [row["checkpoint"] for row in rows] == there


def test_the_table_has_steps_as_they_are_asked_for(
    runs: list[pathlib.Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaxres.evaluation import run

    monkeypatch.setattr(run, "steps", lambda *_: ["1000", "2000"])
    monkeypatch.setattr(
        run, "evaluate", lambda *_, which, **__: {"checkpoint": int(which), "examples": 5000}
    )
    assert main(["evaluate", str(runs[0]), "--checkpoint", "all"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[-2:] for row in rows] == [["1000", "5,000"], ["2000", "5,000"]]


def test_outputs_by_example(
    runs: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "outputs.npz"
    result = told(capsys, str(runs[0]), "--outputs", str(file))
    outputs = np.load(file)
    assert outputs["id"].tolist() == [str(k) for k in range(result["examples"])]
    assert outputs["logits"].shape == (result["examples"], 10)
    right = outputs["logits"].argmax(-1) == outputs["label"]
    assert right.mean() == pytest.approx(result["accuracy"])
    assert (outputs["predicted"] == outputs["logits"].argmax(-1)).all()
    error = metrics.calibration_error(outputs["label"], outputs["logits"])
    assert error == pytest.approx(result["calibration_error"])


def test_a_metric_of_ones_own(
    runs: list[pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_METRICS", {})

    @jaxres.register_metric("margin")
    def margin(labels: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> float:
        ordered = np.sort(logits, -1)
        assert len(labels) == len(logits)
        assert len(names) == logits.shape[1]
        return float((ordered[:, -1] - ordered[:, -2]).mean())

    result = told(capsys, str(runs[0]))
    assert result["margin"] > 0
    with pytest.raises(ValueError, match="already registered"):
        jaxres.register_metric("margin")(margin)
    for name in result.keys() - {"margin"}:
        with pytest.raises(ValueError, match="which 'jaxres evaluate' has"):
            jaxres.register_metric(name)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "needs a run directory, or several"),
        (["RUN", "RUN", "--outputs", "o.npz"], "--outputs is given for several checkpoints"),
        (["RUN", "--checkpoint", "all", "--sweep", "data.opacity", "1"], "--sweep is given for"),
        (["RUN", "--outputs", "o.npz", "--sweep", "data.opacity", "1"], "allowed: one of them"),
        (["RUN", "--outputs", "no/folder/o.npz"], "cannot write 'no/folder/o.npz'"),
        (["nowhere", "--checkpoint", "all"], "is not a run directory"),
    ],
)
def test_what_cannot_be_asked(
    runs: list[pathlib.Path],
    words: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(runs[0].resolve()) if word == "RUN" else word for word in words]
    assert main(["evaluate", *given]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "o.npz").exists()
