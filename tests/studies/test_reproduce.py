"""Running a study: what is there is kept, what fails is told, and a signal stops it whole."""

import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import sys
import threading
import time

import pytest

from jaxres.cli import main
from jaxres.errors import InputError
from jaxres.studies import reproduce
from jaxres.studies.reproduce import Reproduction
from jaxres.studies.study import Row, Study
from tests.conftest import TINY_FLAGS

ROWS = (
    Row("one", "first", pathlib.Path("r.yaml"), tuple(TINY_FLAGS), study={"accuracy": 0.5}),
    Row("two", "second", pathlib.Path("r.yaml"), tuple(TINY_FLAGS), start="one"),
    Row(
        "bad",
        "no such data",
        pathlib.Path("r.yaml"),
        (*TINY_FLAGS, "--data.dataset=mnist", "--data.data-dir=nowhere"),
    ),
)


@pytest.fixture
def made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Reproduction:
    """A study of three rows, whose programs know the tests' network."""
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-m", "tests.tiny"))
    monkeypatch.setattr(reproduce, "DRAWN", {})
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("{}")
    study = Study("s0", "mini", "Title", "Question?", "about", ROWS)
    return Reproduction(study, tmp_path / "runs", tmp_path / "results" / "s0" / "mini.json")


@pytest.fixture
def copied(runs: list[pathlib.Path], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands are not run but noted, a training leaving behind a run of the same settings."""
    asked: list[list[str]] = []

    def copy(words: list[str]) -> None:
        asked.append(list(words))
        if not pathlib.Path(words[1]).exists():
            raise reproduce.CommandFailed(f"no recipe at '{words[1]}'")
        shutil.copytree(runs[0], words[3])

    monkeypatch.setattr(reproduce, "run_command", copy)
    return asked


def silent(found: dict) -> None:
    del found


def test_rows_run_after_those_they_start_from_and_a_failure_stops_no_other(
    made: Reproduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {"mistakes.png": ("mistakes", "--count=4"), "none.png": ("nothing",)}
    monkeypatch.setattr(reproduce, "DRAWN", pictures)
    told: list[str] = []
    found = made.run(
        only=None, seeds=1, keep=False, told=lambda each: told.append(json.dumps(each))
    )
    assert len(told) == 4
    rows = found["rows"]
    for name in ("one", "two"):
        summary = json.loads((made.runs / "s0" / "mini" / name / "seed0/summary.json").read_text())
        assert rows[name]["runs"]["0"]["test"] == summary["test"]
        assert rows[name]["accuracy"]["mean"] == summary["test"]["accuracy"]
        assert not rows[name]["failed"]
    begun = rows["two"]["runs"]["0"]["settings"]["model.init_from"]
    assert begun == str(made.run_dir(ROWS[0], 0))
    drawn = made.run_dir(ROWS[0], 0) / "mistakes.png"
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert "mnist" in rows["bad"]["failed"]["0"]["problem"]
    assert rows["bad"]["failed"]["0"]["command"].startswith("jaxres train r.yaml --output-dir")
    assert json.loads(made.results.read_text()) == found

    stamps = {path: path.stat().st_mtime_ns for path in made.runs.rglob("summary.json")}
    again = made.run(only="two", seeds=1, keep=False, told=silent)
    assert again == found
    assert stamps == {path: path.stat().st_mtime_ns for path in made.runs.rglob("summary.json")}


def test_results_without_run_directories_are_made_again_unless_kept(
    made: Reproduction, copied: list[list[str]]
) -> None:
    found = made.run(only="one", seeds=1, keep=False, told=silent)
    assert len(copied) == 1
    changed = json.loads(made.results.read_text())
    changed["rows"]["one"]["runs"]["0"]["test"]["accuracy"] = 0.123
    made.results.write_text(json.dumps(changed))
    made.run_dir(ROWS[0], 0).rename(made.runs / "elsewhere")
    kept = made.run(only="one", seeds=1, keep=True, told=silent)
    assert kept["rows"]["one"]["accuracy"]["mean"] == 0.123
    assert len(copied) == 1
    again = made.run(only="one", seeds=1, keep=False, told=silent)
    assert again["rows"]["one"]["accuracy"] == found["rows"]["one"]["accuracy"]
    assert len(copied) == 2


def test_a_damaged_run_is_a_failure_of_its_row(made: Reproduction, copied: list[list[str]]) -> None:
    rows = (ROWS[0], dataclasses.replace(ROWS[0], name="other"))
    both = dataclasses.replace(made, study=dataclasses.replace(made.study, rows=rows))
    both.run(only=None, seeds=1, keep=False, told=silent)
    (made.run_dir(ROWS[0], 0) / "config.yaml").write_text("data: {canvas: ")
    found = both.run(only=None, seeds=1, keep=False, told=silent)
    assert "config.yaml" in found["rows"]["one"]["failed"]["0"]["problem"]
    assert found["rows"]["one"]["accuracy"] is None
    assert found["rows"]["other"]["accuracy"] is not None
    assert len(copied) == 2


def test_a_sweep_is_made_once_and_again_where_it_has_changed(
    made: Reproduction, monkeypatch: pytest.MonkeyPatch, runs: list[pathlib.Path]
) -> None:
    run_dir = made.run_dir(ROWS[0], 0)
    shutil.copytree(runs[0], run_dir)
    asked: list[list[str]] = []

    def swept(words: list[str]) -> None:
        asked.append(words)
        rows = [{"value": each, "accuracy": 0.25} for each in words[4:-2]]
        content = {"sweep": words[3], "results": rows, "command": shlex.join(["jaxres", *words])}
        pathlib.Path(words[-1]).write_text(json.dumps(content))

    monkeypatch.setattr(reproduce, "run_command", swept)
    study = dataclasses.replace(made.study, sweep=("data.digit_side", "8", "16"))
    for _ in range(2):
        found = dataclasses.replace(made, study=study).run(
            only="one", seeds=1, keep=False, told=silent
        )
    sweep = ["evaluate", str(run_dir), "--sweep", "data.digit_side", "8", "16"]
    assert asked == [[*sweep, "-o", str(run_dir / "sweep.json")]]
    assert [row["value"] for row in found["rows"]["one"]["runs"]["0"]["sweep"]["results"]] == [
        "8",
        "16",
    ]
    wider = dataclasses.replace(study, sweep=("data.digit_side", "8", "16", "24"))
    dataclasses.replace(made, study=wider).run(only="one", seeds=1, keep=False, told=silent)
    assert len(asked) == 2


@pytest.mark.usefixtures("interruptible")
def test_a_signal_stops_the_run_and_the_same_command_goes_on(made: Reproduction) -> None:
    row = Row("one", "first", pathlib.Path("r.yaml"), (*TINY_FLAGS, "--train.epochs=4000"))
    long = Reproduction(
        Study("s0", "mini", "Title", "Question?", "about", (row,)), made.runs, made.results
    )
    log = long.run_dir(row, 0) / "metrics.jsonl"

    def interrupt() -> None:
        while not log.exists() or '"step": 20' not in log.read_text():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        long.run(only=None, seeds=1, keep=False, told=silent)
    steps = [int(path.name) for path in (long.run_dir(row, 0) / "checkpoints").glob("[0-9]*")]
    assert max(steps) >= 20
    assert signal.getsignal(signal.SIGTERM) is before


def test_damaged_results_are_refused_and_stay(made: Reproduction) -> None:
    made.results.parent.mkdir(parents=True)
    made.results.write_text('{"rows": ')
    with pytest.raises(InputError, match="is damaged"):
        made.run(only="one", seeds=1, keep=False, told=silent)
    assert made.results.read_text() == '{"rows": '
    assert not made.runs.exists()


@pytest.mark.usefixtures("made", "copied")
def test_the_command(capsys: pytest.CaptureFixture) -> None:
    folder = pathlib.Path("studies")
    folder.mkdir()
    flags = " ".join(TINY_FLAGS)
    (folder / "s0.yaml").write_text(
        "title: Title\nquestion: Why?\nrecipes: .\n"
        "profiles:\n  mini:\n    about: small\n    rows:\n"
        f"      one: {{title: first, recipe: r.yaml, flags: '{flags}', study: {{accuracy: 0.5}}}}\n"
        "      bad: {title: second, recipe: none.yaml}\n"
    )
    assert main(["reproduce", "s0"]) == 1
    said = capsys.readouterr()
    table = said.out.splitlines()
    assert table[0].split() == ["system", "accuracy", "min", "max", "seeds", "study"]
    page = pathlib.Path("results/s0/mini.html").read_text()
    found = json.loads(pathlib.Path("results/s0/mini.json").read_text())
    accuracy = found["rows"]["one"]["accuracy"]["mean"]
    assert f"<td>{100 * accuracy:.2f} %</td>" in page
    assert f"{accuracy:.4f}" in said.out
    assert found["rows"]["bad"]["failed"]["0"]["problem"] == "no recipe at 'none.yaml'"
    assert "one: 1 done" in said.err
    everything = pathlib.Path("results/studies.md").read_text()
    assert f"| first | {accuracy:.4f} | single seed |" in everything
    assert "| second | failed |" in everything
    assert "bad: failed" in said.err
    pathlib.Path("results/s0/mini.html").unlink()
    pathlib.Path("results/studies.md").unlink()
    shutil.rmtree("runs")
    assert main(["reproduce", "s0", "--pages-only"]) == 1
    assert pathlib.Path("results/s0/mini.html").read_text() == page
    assert pathlib.Path("results/studies.md").read_text() == everything
    assert not pathlib.Path("runs").exists()
    assert main(["reproduce", "s0", "--seeds", "0"]) == 2
    assert main(["reproduce", "s0", "--only", "thr"]) == 2
    assert main(["reproduce", "s2"]) == 2
