"""Running a study: what is there is kept, what fails is told, and a signal stops it whole."""

import dataclasses
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import threading
import time

import pytest

from jaxres.cli.main import main
from jaxres.runtime.errors import InputError
from jaxres.studies import reproduce, study
from jaxres.studies.reproduce import Reproduction
from jaxres.studies.results import Results
from jaxres.studies.study import Row, Study
from tests.conftest import TINY_FLAGS
from tests.studies.conftest import ROWS


@pytest.fixture
def copied(runs: list[pathlib.Path], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands are not run but noted, a training leaving behind a run of the same settings."""
    asked: list[list[str]] = []

    def copy(words: list[str], *, deadline: float = math.inf) -> None:
        asked.append(list(words))
        if not pathlib.Path(words[1]).exists():
            raise reproduce.CommandFailed(f"no recipe at '{words[1]}'")
        shutil.copytree(runs[0], words[3])

    monkeypatch.setattr(reproduce, "run_command", copy)
    return asked


def silent(found: dict) -> None:
    del found


@pytest.mark.slow
def test_rows_run_after_those_they_start_from_and_a_failure_stops_no_other(
    made: Reproduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {"mistakes.png": ("mistakes", "--count=4"), "none.png": ("nothing",)}
    monkeypatch.setattr(reproduce, "DRAWN", images)
    told: list[str] = []
    found = made.run(
        only=None, seeds=1, keep=False, on_update=lambda each: told.append(json.dumps(each))
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
    again = made.run(only="two", seeds=1, keep=False, on_update=silent)
    assert again == found
    assert stamps == {path: path.stat().st_mtime_ns for path in made.runs.rglob("summary.json")}


def changed_to(results: pathlib.Path, row: str, seeds: dict[int, float]) -> None:
    """Give a row's one run in a results file to several seeds, with these accuracies."""
    content = json.loads(results.read_text())
    runs = content["rows"][row]["runs"]
    runs["0"].pop("gflop", None)  # as older results are
    one = json.dumps(runs["0"])
    for seed, accuracy in seeds.items():
        run = runs[str(seed)] = json.loads(one)
        run["settings"]["train.seed"] = seed
        run["test"]["accuracy"] = accuracy
    results.write_text(json.dumps(content))


def test_results_without_run_directories_are_made_again_unless_kept(
    made: Reproduction, copied: list[list[str]]
) -> None:
    found = made.run(only="one", seeds=1, keep=False, on_update=silent)
    assert len(copied) == 1
    changed_to(made.results, "one", {0: 0.123})
    made.run_dir(ROWS[0], 0).rename(made.runs / "elsewhere")
    kept = made.run(only="one", seeds=1, keep=True, on_update=silent)
    assert kept["rows"]["one"]["accuracy"]["mean"] == 0.123
    assert len(copied) == 1
    again = made.run(only="one", seeds=1, keep=False, on_update=silent)
    assert again["rows"]["one"]["accuracy"] == found["rows"]["one"]["accuracy"]
    assert len(copied) == 2


@pytest.mark.slow
def test_a_row_that_is_not_there_brings_along_the_one_it_starts_from(
    made: Reproduction, copied: list[list[str]]
) -> None:
    made.run(only="one", seeds=1, keep=True, on_update=silent)
    shutil.rmtree(made.runs)
    for _ in range(2):
        made.run(only="two", seeds=1, keep=True, on_update=silent)
    assert [words[3].split("/")[-2] for words in copied] == ["one", "one", "two"]


def test_a_damaged_run_is_a_failure_of_its_row(made: Reproduction, copied: list[list[str]]) -> None:
    rows = (ROWS[0], dataclasses.replace(ROWS[0], name="other"))
    both = dataclasses.replace(made, study=dataclasses.replace(made.study, rows=rows))
    both.run(only=None, seeds=1, keep=False, on_update=silent)
    (made.run_dir(ROWS[0], 0) / "config.yaml").write_text("data: {canvas: ")
    found = both.run(only=None, seeds=1, keep=False, on_update=silent)
    assert "config.yaml" in found["rows"]["one"]["failed"]["0"]["problem"]
    # What was read of it while it was whole stays.
    assert [len(found["rows"][name]["runs"]) for name in ("one", "other")] == [1, 1]
    assert not found["rows"]["other"]["failed"]
    assert len(copied) == 2


def test_a_sweep_is_made_once_and_again_where_it_has_changed(
    made: Reproduction, monkeypatch: pytest.MonkeyPatch, runs: list[pathlib.Path]
) -> None:
    run_dir = made.run_dir(ROWS[0], 0)
    shutil.copytree(runs[0], run_dir)
    asked: list[list[str]] = []

    def swept(words: list[str], *, deadline: float = math.inf) -> None:
        asked.append(words)
        rows = [{"value": each, "accuracy": 0.25} for each in words[4:-2]]
        content = {"sweep": words[3], "results": rows, "command": shlex.join(["jaxres", *words])}
        pathlib.Path(words[-1]).write_text(json.dumps(content))

    monkeypatch.setattr(reproduce, "run_command", swept)
    study = dataclasses.replace(made.study, sweep=("data.digit_side", "8", "16"))
    for _ in range(2):
        found = dataclasses.replace(made, study=study).run(
            only="one", seeds=1, keep=False, on_update=silent
        )
    sweep = ["evaluate", str(run_dir), "--sweep", "data.digit_side", "8", "16"]
    assert asked == [[*sweep, "-o", str(run_dir / "sweep.json")]]
    assert [row["value"] for row in found["rows"]["one"]["runs"]["0"]["sweep"]["results"]] == [
        "8",
        "16",
    ]
    wider = dataclasses.replace(study, sweep=("data.digit_side", "8", "16", "24"))
    dataclasses.replace(made, study=wider).run(only="one", seeds=1, keep=False, on_update=silent)
    assert len(asked) == 2


@pytest.mark.slow
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
        long.run(only=None, seeds=1, keep=False, on_update=silent)
    steps = [int(path.name) for path in (long.run_dir(row, 0) / "checkpoints").glob("[0-9]*")]
    assert max(steps) >= 20
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("interruptible")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_as_one_it_saves_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    got = tmp_path / "got"
    code = (
        "import pathlib, signal, sys, time\n"
        "def note(number, frame): pathlib.Path(sys.argv[1]).write_text(str(number)); sys.exit()\n"
        "signal.signal(signal.SIGINT, note), signal.signal(signal.SIGTERM, note)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-c", code))

    def send(line: str) -> None:
        if line == "ready":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(reproduce, "say", send)
    with pytest.raises(KeyboardInterrupt):
        reproduce.run_command([str(got)])
    assert int(got.read_text()) == (signal.SIGTERM if number == signal.SIGHUP else number)


def test_at_the_deadline_a_command_saves_and_no_other_begins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, made: Reproduction
) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def note(number, frame): pathlib.Path('got').write_text(sys.argv[2]); sys.exit()\n"
        "signal.signal(signal.SIGTERM, note)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-c", code))
    said: list[str] = []
    monkeypatch.setattr(reproduce, "say", said.append)
    short = dataclasses.replace(
        made,
        study=dataclasses.replace(made.study, first=("two",)),
        deadline=time.monotonic() + 2,
    )
    found = short.run(only=None, seeds=2, keep=False, on_update=silent)
    assert said[-2:] == ["ready", "the time is up; the same command continues from here"]
    assert (tmp_path / "got").read_text() == "r.yaml"
    assert all(not row["runs"] and not row["failed"] for row in found["rows"].values())


def test_a_command_that_dies_of_the_deadline_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, made: Reproduction
) -> None:
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-c", "import time; time.sleep(60)"))
    said: list[str] = []
    monkeypatch.setattr(reproduce, "say", said.append)
    for left, commands in ((0.5, 1), (0.0, 0)):
        said.clear()
        short = dataclasses.replace(made, deadline=time.monotonic() + left)
        found = short.run(only=None, seeds=1, keep=False, on_update=silent)
        assert all(not row["runs"] and not row["failed"] for row in found["rows"].values())
        assert len([line for line in said if line.startswith("$ jaxres")]) == commands


@pytest.mark.usefixtures("copied")
def test_rows_named_first_run_before_others(made: Reproduction, copied: list[list[str]]) -> None:
    rows = (ROWS[0], dataclasses.replace(ROWS[0], name="other"))
    study = dataclasses.replace(made.study, rows=rows, first=("other",))
    late = dataclasses.replace(made, study=study)
    late.run(only=None, seeds=1, keep=False, on_update=silent)
    assert [pathlib.Path(words[3]).parts[-2] for words in copied] == ["other", "one"]
    over = dataclasses.replace(late, deadline=time.monotonic() - 1, runs=made.runs / "new")
    found = over.run(only=None, seeds=1, keep=True, on_update=silent)
    assert len(copied) == 2
    assert found["rows"]["one"]["accuracy"] is not None  # of the results that were there
    with pytest.raises(InputError, match="unknown row of study s0"):
        dataclasses.replace(study, first=("third",)).in_order()


def test_a_command_under_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-c", "print('ready')"))
    said: list[str] = []

    def send(line: str) -> None:
        said.append(line)
        if line == "ready":
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(reproduce, "say", send)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        reproduce.run_command([])
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert said[-1] == "ready"


def test_damaged_results_are_refused_and_stay(made: Reproduction) -> None:
    made.results.parent.mkdir(parents=True)
    made.results.write_text('{"rows": ')
    with pytest.raises(InputError, match="is damaged"):
        made.run(only="one", seeds=1, keep=False, on_update=silent)
    assert made.results.read_text() == '{"rows": '
    assert not made.runs.exists()


def test_a_failure_takes_no_result_away(
    made: Reproduction, copied: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run(only="one", seeds=1, keep=False, on_update=silent)
    changed_to(made.results, "one", {0: 0.25, 2: 0.75, 1: 0.5})
    shutil.rmtree(made.runs)

    def fail(words: list[str], *, deadline: float = math.inf) -> None:
        raise reproduce.CommandFailed("no such data")

    monkeypatch.setattr(reproduce, "run_command", fail)
    entry = made.run(only="one", seeds=1, keep=False, on_update=silent)["rows"]["one"]
    assert entry["accuracy"] == {"mean": 0.5, "min": 0.25, "max": 0.75}
    assert [*entry["runs"]] == ["0", "1", "2"]
    assert [*entry["failed"]] == ["0"]

    def interrupt(words: list[str], *, deadline: float = math.inf) -> None:
        raise KeyboardInterrupt

    before = made.results.read_text()
    monkeypatch.setattr(reproduce, "run_command", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made.run(only="one", seeds=1, keep=False, on_update=silent)
    assert made.results.read_text() == before
    assert len(copied) == 1


def test_a_training_that_was_stopped_by_itself_stops_no_other_row(
    made: Reproduction, monkeypatch: pytest.MonkeyPatch, runs: list[pathlib.Path]
) -> None:
    def stopped(words: list[str], *, deadline: float = math.inf) -> None:
        copied = pathlib.Path(shutil.copytree(runs[0], words[3]))
        if "one" in copied.parts:
            (copied / "summary.json").unlink()

    monkeypatch.setattr(reproduce, "run_command", stopped)
    rows = (ROWS[0], dataclasses.replace(ROWS[0], name="other"))
    both = dataclasses.replace(made, study=dataclasses.replace(made.study, rows=rows))
    found = both.run(only=None, seeds=1, keep=False, on_update=silent)
    assert "stopped before its end" in found["rows"]["one"]["failed"]["0"]["problem"]
    assert found["rows"]["other"]["accuracy"] is not None


@pytest.mark.usefixtures("copied")
def test_results_of_other_settings_are_kept_but_do_not_count(made: Reproduction) -> None:
    made.run(only="one", seeds=1, keep=False, on_update=silent)
    other = dataclasses.replace(ROWS[0], flags=(*TINY_FLAGS, "--optim.learning-rate=1"))
    changed = dataclasses.replace(made.study, rows=(other,))
    found = dataclasses.replace(made, study=changed).opened(silent).write()
    assert found["rows"]["one"]["accuracy"] is None
    assert [*found["rows"]["one"]["outdated"]] == ["0"]
    without = dataclasses.replace(made.study, rows=(ROWS[2],))
    found = dataclasses.replace(made, study=without).opened(silent).write()
    assert [*found["rows"]] == ["bad"]
    assert [*found["former"]] == ["one"]
    back = made.opened(silent).write()
    assert back["rows"]["one"]["accuracy"] is not None
    assert "outdated" not in back["rows"]["one"]
    assert "former" not in back

    found = dataclasses.replace(made, study=changed).run(
        only="one", seeds=1, keep=False, on_update=silent
    )
    problem = found["rows"]["one"]["failed"]["0"]["problem"]
    assert "other settings (optim.learning_rate is 1.0, was 0.003): remove it" in problem


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_a_row_is_that_of_the_weights_it_started_from(made: Reproduction) -> None:
    rows = (ROWS[0], dataclasses.replace(ROWS[0], name="two", start="one"))
    both = dataclasses.replace(made, study=dataclasses.replace(made.study, rows=rows))
    both.run(only="two", seeds=1, keep=False, on_update=silent)
    settings = made.run_dir(rows[1], 0) / "config.yaml"
    begun = f"init_from: {made.run_dir(rows[0], 0)}"
    settings.write_text(re.sub("init_from: .*", begun, settings.read_text()))
    found = both.run(only="two", seeds=1, keep=False, on_update=silent)
    assert not found["rows"]["two"]["failed"]
    assert found["rows"]["two"]["runs"]["0"]["start"]["train.epochs"] == 2

    longer = dataclasses.replace(ROWS[0], flags=(*TINY_FLAGS, "--train.epochs=3"))
    study = dataclasses.replace(made.study, rows=(longer, rows[1]))
    found = dataclasses.replace(made, study=study).run(
        only="two", seeds=1, keep=False, on_update=silent
    )
    assert "(train.epochs of one is 3, was 2)" in found["rows"]["two"]["failed"]["0"]["problem"]
    assert [*found["rows"]["two"]["outdated"]] == ["0"]
    elsewhere = shutil.move(made.runs, made.runs.with_name("moved"))
    moved = dataclasses.replace(both, runs=pathlib.Path(elsewhere))
    found = moved.run(only="two", seeds=1, keep=False, on_update=silent)
    assert not found["rows"]["two"]["failed"]
    assert found["rows"]["two"]["accuracy"] is not None


@pytest.mark.slow
@pytest.mark.usefixtures("copied")
def test_what_two_processes_write_is_all_there(made: Reproduction) -> None:
    run = made.run(only="one", seeds=1, keep=False, on_update=silent)["rows"]["one"]["runs"]["0"]
    first, second = made.opened(silent), made.opened(silent)

    def add(results: Results, seeds: range) -> None:
        for seed in seeds:
            settings = run["settings"] | {"train.seed": seed}
            results.write(ROWS[0], seed, run=run | {"settings": settings})

    threads = [
        threading.Thread(target=add, args=(results, seeds))
        for results, seeds in ((first, range(0, 8, 2)), (second, range(1, 8, 2)))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [*made.opened(silent).write()["rows"]["one"]["runs"]] == [str(k) for k in range(8)]


@pytest.mark.parametrize(
    "content",
    [
        '{"rows": []}',
        '{"rows": {"one": null}}',
        '{"rows": {"one": {"runs": {"0": {}}, "failed": {}}}}',
        '{"rows": {"one": {"runs": {}, "failed": {"0": {"problem": 1}}}}}',
        "[" * 99_999,
    ],
)
def test_results_that_are_none_are_refused_and_stay(made: Reproduction, content: str) -> None:
    made.results.parent.mkdir(parents=True)
    made.results.write_text(content)
    with pytest.raises(InputError, match="is damaged"):
        made.run(only="one", seeds=1, keep=False, on_update=silent)
    assert made.results.read_text() == content


@pytest.mark.usefixtures("made")
def test_the_command(copied: list[list[str]], capsys: pytest.CaptureFixture) -> None:
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
    assert "bad: 1 failed" in said.err
    pathlib.Path("results/s0/mini.html").unlink()
    pathlib.Path("results/studies.md").unlink()
    shutil.rmtree("runs")
    assert main(["reproduce", "s0", "--pages-only"]) == 0
    assert pathlib.Path("results/s0/mini.html").read_text() == page
    assert pathlib.Path("results/studies.md").read_text() == everything
    assert not pathlib.Path("runs").exists()
    capsys.readouterr()
    # Of the other row's failure nothing is asked, and this is one path in two ways.
    for runs in ("runs", str(pathlib.Path("runs").absolute())):
        assert main(["reproduce", "s0", "--only", "one", "--runs", runs]) == 0
        assert "bad: 1 failed" in capsys.readouterr().err
    assert [words[3] for words in copied].count("runs/s0/mini/one/seed0") == 2
    shutil.rmtree("runs")
    assert main(["reproduce", "s0", "--only", "one", "--seeds", "1", "--keep-results"]) == 0
    assert "1 of 1 runs are earlier results" in capsys.readouterr().err
    assert main(["reproduce", "s0", "--only", "one", "--devices", "1"]) == 0
    assert [*TINY_FLAGS, "--train.seed", "0", "--train.devices", "1"] == copied[-1][4:]
    assert main(["reproduce", "s0", "--devices", "0"]) == 2
    assert main(["reproduce", "s0", "--only", ""]) == 2
    assert main(["reproduce", "s0", "--pages-only", "--results", "elsewhere"]) == 2
    assert not pathlib.Path("elsewhere").exists()
    assert main(["reproduce", "s0", "--seeds", "0"]) == 2
    assert main(["reproduce", "s0", "--only", "thr"]) == 2
    assert main(["reproduce", "s2"]) == 2


def test_the_published_results_are_those_of_the_recipes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.chdir(root)
    published = [*root.glob("results/s*/mini.json")]
    assert len(published) >= 4
    for path in published:
        chosen = study.read(path.parent.name, "mini")
        copy = pathlib.Path(shutil.copy(path, tmp_path))
        found = Reproduction(chosen, pathlib.Path("runs"), copy).opened(silent).write()
        # If not: `jaxres reproduce STUDY` makes anew what is outdated.
        assert found == json.loads(path.read_text())
        assert "former" not in found
        # Each row counts a run of today's settings; what is outdated stays beside it, marked.
        assert all(row["runs"] for row in found["rows"].values())
