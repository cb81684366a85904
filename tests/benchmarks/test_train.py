import json
import subprocess
import time
import types
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from benchmarks import train as program
from benchmarks.steps import to_accuracy
from jaxres.config import to_dict
from jaxres.data.composed import open_split
from jaxres.distributed.mesh import make_mesh
from jaxres.training import loop

RECIPE = "configs/quickstart.yaml"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_end_to_end_beside_the_step_alone(tiny_flags, tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = [RECIPE, *tiny_flags, "--steps=3", "--json", str(path)]
    assert program.main(words) == 0
    whole, alone = json.loads(path.read_text())["rows"]
    assert whole["case"] == "quickstart, end to end"
    assert alone["case"] == "quickstart, step only"
    for row in (whole, alone):
        assert row["benchmark"] == "train"
        assert (row["steps_per_window"], row["render"]) == (3, "device")
        assert (row["batch_size"], row["image_size"], row["repeats"]) == (32, 32, 7)
        assert row["images_per_s"] == pytest.approx(32e3 / row["step_ms"]["p50"])
        assert row["compile_s"] > 0
    assert 0 <= whole["data_wait_share"] < 1
    assert whole["peer"]["images_per_s"] == alone["images_per_s"]
    assert whole["ratio"]["pairs"] == 7
    assert "step only" in capsys.readouterr().out


@pytest.mark.slow
def test_end_to_end_trains_and_fetches_metrics_as_the_loop_does(tiny_config, tmp_path, monkeypatch):
    # 10 steps, logged every 4.
    config = tiny_config("--train.epochs=1", "--data.render=host", "--train.steps-per-call=2")
    loop.train(config, tmp_path / "run")
    path = (tmp_path / "run" / "checkpoints" / "10" / "variables").absolute()
    with ocp.StandardCheckpointer() as reader:
        saved = reader.restore(path)

    fetched = []
    close = program.Window.close

    def counted(window):
        numbers = close(window)
        fetched.append(numbers.get("pictures"))
        return numbers

    monkeypatch.setattr(program.Window, "close", counted)
    dataset = open_split(config, "train")
    whole = program.EndToEnd(config, dataset, make_mesh(None))
    whole.run(8)  # the first two steps were taken to compile
    whole.close()
    assert fetched == [2 * 32, 2 * 32, 4 * 32, 2 * 32]
    for name in ("params", "stats"):
        ours, theirs = jax.tree.leaves(getattr(whole._state, name)), jax.tree.leaves(saved[name])
        assert len(ours) == len(theirs) > 3
        for left, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def test_a_window_lasts_about_as_long_as_asked():
    class Slow:
        steps_per_call = 2

        def run(self, steps):
            time.sleep(0.005 * steps)

    assert 10 <= program._steps_of(Slow(), 0.1) <= 20  # pyright: ignore[reportArgumentType]


def test_a_smaller_batch_is_said(tiny_flags, tmp_path, monkeypatch):
    tried = []

    def compared(config, *others):
        tried.append(config.data.batch_size)
        if config.data.batch_size > 16:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return [program.rows.row("train", "case", batch_size=config.data.batch_size)]

    monkeypatch.setattr(program, "compared", compared)
    path = tmp_path / "rows.json"
    words = [RECIPE, *tiny_flags, "--data.batch-size=48", "--json", str(path)]
    assert program.main(words) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert tried == [48, 24, 12]
    assert (row["batch_size"], row["batch_size_asked"]) == (12, 48)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "no recipe at 'none.yaml'"),
        ([RECIPE, "--model.name=resnet19"], "unknown model 'resnet19'"),
        ([RECIPE, "--data.batch-size=30"], "data.batch_size is 30, which does not divide over 4"),
        ([RECIPE, "--data.batch-size=5000"], "data.batch_size is 5000"),
    ],
)
def test_wrong_input_is_one_sentence(refusal, words, message):
    assert message in refusal(program.main(words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats=6"], "'6'; allowed: whole numbers from 7"),
        (["--seconds=-1"], "'-1'; allowed: seconds above 0"),
        (["--seconds=9", "--steps=9"], "not allowed with argument --seconds"),
        (["--to-accuracy=99"], "'99'; allowed: a share above 0, up to 1"),
        (["--to-accuracy=0.9", "--seeds=0"], "'0'; allowed: whole numbers from 1"),
    ],
)
def test_wrong_arguments_end_with_status_2(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        program.main([RECIPE, *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_time_to_accuracy_of_a_real_run(tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setattr(to_accuracy, "TRAIN", ("-m", "tests.tiny", "train"))
    path = tmp_path / "rows.json"
    short = [*tiny_flags, "--train.epochs=1", "--train.limit-train-examples=64"]
    words = [RECIPE, *short, "--to-accuracy=0.01", "--seeds=1", "--json", str(path)]
    began = time.perf_counter()
    assert program.main(words) == 0
    passed = time.perf_counter() - began
    (row,) = json.loads(path.read_text())["rows"]
    assert row["case"] == "quickstart to 0.01 on the test split"
    assert (row["repeats"], row["reached"], row["model"]) == (1, 1, "tiny")
    (run,) = row["seeds"]
    assert 0 < run["compile_s"] < run["validation_reached_s"] < run["tested_s"] < run["ended_s"]
    assert run["ended_s"] < passed
    assert row["to_accuracy_s"]["mean"] == run["tested_s"]
    assert row["to_accuracy_s"]["std"] is None


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tiny_config):
    """`jaxres train` acted out: test accuracies 0.98, 0.99, 1.0 after 20, 30, 40 s."""
    commands = []

    def run(command, *, env, **_):
        seed = len(commands)
        commands.append((command, env))
        folder = Path(command[command.index("--output-dir") + 1])
        folder.mkdir()
        began = time.time()
        logged = [
            {"split": "train", "accuracy": 1.0, "unix_time_s": began + 1},
            {"split": "validation", "accuracy": 0.5, "unix_time_s": began + 5},
            {"split": "validation", "accuracy": 0.99, "unix_time_s": began + 10},
            {
                "split": "test",
                "accuracy": 0.98 + 0.01 * seed,
                "unix_time_s": began + 20 + 10 * seed,
            },
        ]
        lines = "".join(json.dumps(row) + "\n" for row in logged)
        (folder / "metrics.jsonl").write_text(lines)
        (folder / "summary.json").write_text('{"compile_s": 3.0, "images_per_s": null}')
        (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(tiny_config())))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(to_accuracy, "subprocess", types.SimpleNamespace(run=run))
    return commands


def test_each_seed_has_a_fresh_process_without_a_cache(trainings, tmp_path):
    path = tmp_path / "rows.json"
    flags = ["--data.batch-size=32"]
    words = [RECIPE, *flags, "--to-accuracy=0.99", "--seeds=3", "--json", str(path)]
    assert program.main(words) == 0
    assert len({command[command.index("--output-dir") + 1] for command, _ in trainings}) == 3
    assert [command[-1] for command, _ in trainings] == [f"--train.seed={k}" for k in range(3)]
    for command, env in trainings:
        assert command[1:5] == ["-m", "jaxres", "train", RECIPE]
        assert flags[0] in command
        assert env["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    (row,) = json.loads(path.read_text())["rows"]
    assert row["reached"] == 2
    spread = row["to_accuracy_s"]
    assert spread["mean"] == pytest.approx(30, abs=0.5)
    assert spread["std"] == pytest.approx(10, abs=0.5)
    assert (round(spread["min"]), round(spread["max"])) == (20, 40)
    assert row["test_accuracy"]["mean"] == pytest.approx(0.99)
    assert [round(run["validation_reached_s"]) for run in row["seeds"]] == [10, 10, 10]


@pytest.mark.parametrize(("status", "told"), [(2, 2), (1, 1), (-9, 1)])
def test_a_training_that_fails_ends_the_program(monkeypatch, capsys, status, told):
    def run(command, **_):
        return subprocess.CompletedProcess(command, status, "", "noise\nerror: it is so\n")

    monkeypatch.setattr(to_accuracy, "subprocess", types.SimpleNamespace(run=run))
    assert program.main([RECIPE, "--to-accuracy=0.99"]) == told
    said = capsys.readouterr().err
    assert "it is so" in said
    assert (f"seed 0 ended with status {status}" in said) == (status != 2)
