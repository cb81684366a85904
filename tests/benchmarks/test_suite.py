import argparse
import importlib
import json
import os
import re
import shlex
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import peers, step, suite
from benchmarks.lists import LISTS, Entry
from jaxres.config import recipe
from jaxres.config.recipe import split_settings
from jaxres.models.registry import list_models
from jaxres.runtime.errors import InputError
from tests.marked import slow

MINI = ["--data.dataset", "digits", "--data.backgrounds", "embedded"]


@pytest.fixture
def short_list(monkeypatch):
    """A list on a machine with two CPU devices; its second entry fails."""
    entries = [
        Entry("first", "fake --plot {out}/{name}.png", quick="fake --few", seconds=20),
        Entry("second", "fake --broken", quick=""),
        Entry("third", "fake {data}", env={"XLA_FLAGS": "--a --b"}, seconds=40),
        Entry("wide", "fake --wide", devices=4),
    ]
    monkeypatch.setitem(suite.LISTS, "cpu", entries)
    monkeypatch.setattr(suite, "device_count", lambda device: 2)
    monkeypatch.setattr(suite, "embedded_flags", lambda: MINI)


@pytest.fixture
def ran(monkeypatch):
    """The commands given, in place of running them, with XLA_FLAGS where an entry sets it."""
    commands = []

    def fake(program, env, limit_s):
        words = program[3:]
        commands.append((words, env.get("XLA_FLAGS")))
        if "--broken" in words:
            return 1
        with open(words[-1], "w") as file:
            json.dump({"rows": [{"case": "x", "command": "?"}]}, file)
        return 0

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(suite, "run_whole", fake)
    return commands


def test_the_list_goes_on_after_a_failure_and_names_it(short_list, ran, tmp_path, capsys):
    assert suite.main(["--device", "cpu", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "error: failed: second\n" in said
    assert "[4/4] wide: left out, needs 4 devices" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first.json", "third.json"]
    assert ran == [
        (["--plot", f"{tmp_path}/first.png", "--json", f"{tmp_path}/first.partial.json"], None),
        (["--broken", "--json", f"{tmp_path}/second.partial.json"], None),
        ([*MINI, "--json", f"{tmp_path}/third.partial.json"], "--a --b"),
    ]
    (row,) = json.loads((tmp_path / "third.json").read_text())["rows"]
    command = f"python -m benchmarks.fake {' '.join(MINI)} --json {tmp_path}/third.json"
    assert row["command"] == f"XLA_FLAGS='--a --b' {command}"
    assert row["env"] == {"XLA_FLAGS": "--a --b"}


def test_what_is_there_is_left_unless_it_is_to_be_overwritten(short_list, ran, tmp_path, capsys):
    words = ["--device", "cpu", "--out", str(tmp_path), "--only", "first"]
    (tmp_path / "first.json").write_text("{}")
    assert suite.main(words) == 0
    assert not ran
    assert "first.json is there (--overwrite replaces it)" in capsys.readouterr().err
    assert suite.main([*words, "--overwrite"]) == 0
    assert len(ran) == 1


def test_quick_takes_shorter_sweeps(short_list, ran, tmp_path, capsys):
    assert suite.main(["--device", "cpu", "--out", str(tmp_path), "--quick"]) == 0
    assert [words[0] for words, _ in ran] == ["--few", "--data.dataset"]


def test_a_dry_run_prints_the_commands_and_runs_none(short_list, ran, tmp_path, capsys):
    assert suite.main(["--device", "cpu", "--out", str(tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "XLA_FLAGS='--a --b' python -m benchmarks.fake --data.dataset digits" in said
    assert not ran


def test_of_the_missing_what_fits_in_the_minutes_is_run(short_list, ran, tmp_path, capsys):
    words = ["--device", "cpu", "--out", str(tmp_path), "--minutes", "1"]
    assert suite.main(words) == 0  # the second would take 300 s
    said = capsys.readouterr().err
    assert re.search(r"second: left out, \d\d s left of the 300 it may take", said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first.json", "third.json"]
    assert suite.main(words) == 0
    assert len(ran) == 2
    assert "first.json is there" in capsys.readouterr().err


def test_a_dry_run_takes_the_estimates_for_the_time(short_list, ran, tmp_path, capsys):
    words = ["--device", "cpu", "--out", str(tmp_path), "--minutes", "0.9", "--dry-run"]
    assert suite.main(words) == 0
    assert re.search(r"third: left out, 3\d s left of the 40", capsys.readouterr().err)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_are_a_number_above_0(minutes, capsys):
    with pytest.raises(SystemExit) as stopped:
        suite.main(["--device", "cpu", "--minutes", minutes])
    assert stopped.value.code == 2
    assert "allowed: a number above 0" in capsys.readouterr().err


STARTS_ANOTHER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(float(sys.argv[2]))
sys.exit(3)
"""


@pytest.mark.parametrize(("sleeps", "status"), [slow("60", None), ("0", 3)])
def test_what_a_program_has_started_ends_with_it(tmp_path, sleeps, status):
    file = tmp_path / "pid"
    program = [sys.executable, "-c", STARTS_ANOTHER, str(file), sleeps]
    assert suite.run_whole(program, os.environ, 3.0) == status
    pid = int(file.read_text())
    _, alive = psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    assert all(each.status() == psutil.STATUS_ZOMBIE for each in alive)


def test_an_entry_that_runs_out_of_time_leaves_its_rows_aside(short_list, monkeypatch, tmp_path):
    def stopped(program, env, limit_s):
        Path(program[-1]).write_text('{"rows": [{}]}')
        assert 0 < limit_s <= 60

    monkeypatch.setattr(suite, "run_whole", stopped)
    words = ["--device", "cpu", "--out", str(tmp_path), "--minutes", "1", "--only", "first"]
    assert suite.main(words) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["first.partial.json"]


def test_an_unknown_name_is_refused(short_list, ran, refusal):
    said = refusal(suite.main(["--device", "cpu", "--only", "thrid"]))
    assert "unknown benchmark in --only 'thrid': did you mean 'third'?" in said


def test_a_device_that_is_not_here_is_refused(refusal):
    said = refusal(suite.main(["--device", "gpu"]))
    assert said.startswith("error: --device is gpu; allowed here: cpu, the kind JAX finds")


@pytest.mark.slow
def test_the_devices_are_counted():
    assert suite.device_count("cpu") == 4
    with pytest.raises(InputError, match="--device is tpu"):
        suite.device_count("tpu")


def test_peers_that_are_not_installed_are_left_out(capsys):
    words = suite.without_missing_peers(["step", "--peer", "flax,no_peer", "--dtype", "float32"])
    assert words == ["step", "--peer", "flax", "--dtype", "float32"]
    assert "no_peer is not installed: peer no_peer left out" in capsys.readouterr().err
    assert suite.without_missing_peers(["step", "--peer", "no_peer"]) == ["step"]
    ours = ["step", "--peer", "unfolded,deterministic"]  # which no package holds
    assert suite.without_missing_peers(ours) == ours


def test_embedded_data_stands_in_where_none_is_prepared(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert suite.embedded_flags() == MINI
    assert "not both prepared" in capsys.readouterr().err


COMMANDS = [
    pytest.param(words, id=f"{device}-{entry.name}-{kind}")
    for device, entries in LISTS.items()
    for entry in entries
    for kind, words in (("full", entry.words), ("quick", entry.quick))
    if words
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_of_the_lists_parses(words, tmp_path, monkeypatch):
    class Parsed(Exception):  # noqa: N818
        pass

    def parse_args(self, words=None, namespace=None):
        raise Parsed(parse(self, words, namespace))

    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    program, *rest = suite.arguments(Entry("x", words), tmp_path, MINI, 6, quick=False)
    module = importlib.import_module(f"benchmarks.{program}")
    with pytest.raises(Parsed) as parsed:
        module.main(rest)
    _, flags = split_settings(rest)
    assert not flags or recipe.load(parsed.value.args[0].recipe, flags)
    assert "{" not in " ".join(rest)


STEPS = [each for each in COMMANDS if str(each.values[0]).startswith("step ")]


@pytest.mark.parametrize("words", STEPS)
def test_steps_of_the_lists_have_models_that_their_peers_have(words, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda package: package)
    args = step._parser().parse_args(shlex.split(words.replace("{out}", "."))[1:])
    models = args.model or [model for model, _, _ in args.case]
    assert set(models) <= set(list_models())
    peers.check(args.peer, models)


def test_counts_of_devices_are_powers_of_two_up_to_those_here(tmp_path):
    entry = Entry("x", "scaling --devices {counts}")
    assert suite.arguments(entry, tmp_path, [], 6, quick=False)[-1] == "1,2,4"
    assert suite.arguments(entry, tmp_path, [], 1, quick=False)[-1] == "1"


def test_names_in_a_list_differ():
    for entries in LISTS.values():
        names = [entry.name for entry in entries]
        assert len(names) == len(set(names))
