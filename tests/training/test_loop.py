"""The loop end to end on a small network: files written, resuming, stopping, refusing."""

import json
import math
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

from jaxres.checkpoint.reader import open_run
from jaxres.cli.main import main
from jaxres.config import to_dict
from jaxres.distributed.signals import StopSignal
from jaxres.evaluation import run as runs
from jaxres.evaluation.evaluator import SplitEvaluator
from jaxres.logs.rows import keep_rows
from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed
from jaxres.training import loop
from jaxres.training.loop import call_lengths
from jaxres.training.run import Run, start_run, write_run_file
from tests.faults.runs import run
from tests.marked import slow
from tests.training import unplug
from tests.training.unplug import unplugged_at


def rows(run_dir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def saved_leaves(run_dir: pathlib.Path, step: int) -> list[np.ndarray]:
    """Every array of a checkpoint, read without JaxRes."""
    leaves = []
    for item in ("variables", "optimizer"):
        path = (run_dir / "checkpoints" / str(step) / item).absolute()
        with ocp.StandardCheckpointer() as reader:
            leaves += [np.asarray(leaf) for leaf in jax.tree.leaves(reader.restore(path))]
    return leaves


def assert_same_end(one: pathlib.Path, other: pathlib.Path, step: int) -> None:
    ours, theirs = saved_leaves(one, step), saved_leaves(other, step)
    assert len(ours) > 10
    chex.assert_trees_all_equal(ours, theirs)


def test_a_run_writes_what_the_design_names(tiny_config, tmp_path: pathlib.Path) -> None:
    config = tiny_config()
    started = time.time()
    summary = loop.train(config, tmp_path / "run", profile=True)
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written == summary
    assert written["model"] == "tiny"
    assert written["dataset"] == "digits"
    assert written["parameters"] == 8 * 27 + 16 * 72 + 2 * (8 + 16) + 170
    assert written["test"]["examples"] == 50
    assert written["best"]["step"] in (10, 20)
    assert written["devices"]["count"] == 4
    assert written["versions"]["jax"] == jax.__version__
    assert written["images_per_s"] > 0
    assert written["compile_s"] > 0
    assert 0 <= written["data_wait_share"] < 1
    assert written["commit"] is None or len(written["commit"].removesuffix("-dirty")) == 40
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved == to_dict(config)

    logged = rows(tmp_path / "run")
    train = [row for row in logged if row["split"] == "train"]
    assert [row["step"] for row in train] == [4, 8, 10, 12, 16, 20]
    assert [row["step"] for row in logged if row["split"] == "validation"] == [10, 20]
    assert [row["step"] for row in logged if row["split"] == "test"] == [written["best"]["step"]]
    assert all(row["images_per_s"] > 0 for row in train[1:])
    moments = [row["unix_time_s"] for row in logged]
    assert started < moments[0]
    assert moments == sorted(moments)
    assert moments[-1] < time.time()
    assert train[-1]["loss"] < train[0]["loss"]
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    ("mode", "ends"), [("jit", (14,)), slow("jit", (5, 14)), slow("pmap", (5, 14))]
)
def test_a_resumed_run_ends_as_a_straight_one_bit_for_bit(
    tiny_config, tmp_path: pathlib.Path, mode: str, ends: tuple[int, ...]
) -> None:
    config = tiny_config(
        f"--train.parallel={mode}",
        "--checkpoint.every-steps=3",
        "--checkpoint.keep-last=9",
        "--optim.ema-decay=0.9",
        "--model.dropout=0.2",
        "--data.placement=random",
    )
    loop.train(config, tmp_path / "straight")

    for step in ends:
        with unplugged_at(step):
            loop.train(config, tmp_path / "broken")
    loop.train(config, tmp_path / "broken")

    assert_same_end(tmp_path / "straight", tmp_path / "broken", 20)
    ours, theirs = rows(tmp_path / "straight"), rows(tmp_path / "broken")
    for split in ("train", "validation"):
        steps = [row["step"] for row in theirs if row["split"] == split]
        assert steps == sorted(set(steps))  # no row twice
    keep = ("step", "loss", "accuracy")
    validation = [[r[k] for k in keep] for r in ours if r["split"] == "validation"]
    assert validation == [[r[k] for k in keep] for r in theirs if r["split"] == "validation"]


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "step"), [("signal", 10), ("kill", 20)])
def test_what_ends_an_evaluation_loses_nothing(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ending: str, step: int
) -> None:
    config = tiny_config("--train.limit-eval-examples=300")
    loop.train(config, tmp_path / "straight")
    unless = SplitEvaluator.evaluate_until
    calls = []

    def ended(self: SplitEvaluator, stopped: Callable[[], bool], weights: Any) -> Any:
        calls.append(stopped)
        if len(calls) != step // 10:
            return unless(self, stopped, weights)
        if ending == "kill":
            raise RuntimeError("pulled the plug")
        batches = []

        def signalled() -> bool:
            batches.append(1)
            if len(batches) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            assert len(batches) <= 3
            return stopped()

        return unless(self, signalled, weights)

    with monkeypatch.context() as patched:
        patched.setattr(SplitEvaluator, "evaluate_until", ended)
        with pytest.raises((RuntimeError, Interrupted), match=f"plug|SIGTERM: saved step {step} "):
            loop.train(config, tmp_path / "broken")
    log = tmp_path / "broken" / "metrics.jsonl"
    if ending == "kill":  # after the row, before the checkpoint knew
        row = {"step": step, "split": "validation", "loss": 1.0, "accuracy": 0.0}
        log.write_text(log.read_text() + json.dumps(row) + "\n")
    loop.train(config, tmp_path / "broken")
    assert_same_end(tmp_path / "straight", tmp_path / "broken", 20)
    keep = ("step", "loss", "accuracy")
    ours, theirs = (
        [[row[key] for key in keep] for row in rows(folder) if row["split"] != "train"]
        for folder in (tmp_path / "straight", tmp_path / "broken")
    )
    assert ours == theirs
    best, other = (
        json.loads((tmp_path / name / "summary.json").read_text())["best"]
        for name in ("straight", "broken")
    )
    assert best == other


def test_weights_whose_evaluation_is_not_finite_are_not_kept(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unless = SplitEvaluator.evaluate_until
    metrics = iter([{}, {"loss": math.nan}])
    monkeypatch.setattr(
        SplitEvaluator, "evaluate_until", lambda *words: (unless(*words) or {}) | next(metrics)
    )
    with pytest.raises(TrainingFailed, match=r"validation loss is nan at step 20.*step 10 is kept"):
        loop.train(tiny_config(), tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["10"]


@pytest.mark.slow
def test_a_best_checkpoint_that_someone_removed_is_said(
    tiny_config,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_steps = loop.train_steps

    def removed(run: Run, *arguments: Any) -> None:
        train_steps(run, *arguments)
        run.start.progress.best = {"step": 15, "epoch": 1.5, "accuracy": 1.0, "loss": 0.0}

    monkeypatch.setattr(loop, "train_steps", removed)
    assert loop.train(tiny_config(), tmp_path / "run")["test"]["checkpoint"] == 20
    told = capsys.readouterr().err
    assert "warning: the best checkpoint, step 15, is gone" in told
    assert "testing the newest, step 20" in told


@pytest.mark.slow
def test_a_run_goes_on_with_the_other_compilation_and_device_count(
    tiny_config, tmp_path: pathlib.Path
) -> None:
    # SGD: Adam divides by the gradient's size, so that rounding decides where a gradient is tiny.
    flags = ["--model.sync-batch-norm=True", "--checkpoint.keep-last=9", "--optim.name=sgd"]
    loop.train(tiny_config(*flags), tmp_path / "straight")
    first = tiny_config(*flags)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "evaluate_best", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr(loop, "call_lengths", lambda *_: iter([1] * 10))
        with pytest.raises(KeyboardInterrupt):
            loop.train(first, tmp_path / "moved")
    loop.train(
        tiny_config(*flags, "--train.parallel=pmap", "--train.devices=2"), tmp_path / "moved"
    )
    for left, right in zip(
        saved_leaves(tmp_path / "straight", 20), saved_leaves(tmp_path / "moved", 20), strict=True
    ):
        # Other device counts add in another order: see tests/training/test_step.py.
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_several_steps_per_call_end_at_epochs() -> None:
    assert list(call_lengths(0, 10, 5, 2)) == [2, 2, 1, 2, 2, 1]
    assert list(call_lengths(4, 10, 5, 3)) == [1, 3, 2]
    assert list(call_lengths(10, 10, 5, 3)) == []


@pytest.mark.slow
def test_steps_per_call_trains_the_same(tiny_config, tmp_path: pathlib.Path) -> None:
    # With seed 0 some input of ReLU is zero but for rounding, which decides its gradient.
    flags = ["--optim.name=sgd", "--train.seed=1"]
    loop.train(tiny_config(*flags), tmp_path / "one")
    loop.train(tiny_config(*flags, "--train.steps-per-call=4"), tmp_path / "four")
    for left, right in zip(
        saved_leaves(tmp_path / "one", 20), saved_leaves(tmp_path / "four", 20), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_best_and_the_last_checkpoints_are_kept(tiny_config, tmp_path: pathlib.Path) -> None:
    config = tiny_config(
        "--train.epochs=6", "--checkpoint.keep-last=2", "--checkpoint.every-steps=7"
    )
    summary = loop.train(config, tmp_path / "run")
    kept = {
        int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir()
    }
    newest = {56, 60}
    assert kept == newest | {summary["best"]["step"]}
    scores = {
        r["step"]: r["accuracy"] for r in rows(tmp_path / "run") if r["split"] == "validation"
    }
    assert scores[summary["best"]["step"]] == max(scores.values())


@pytest.mark.slow
def test_evaluation_of_a_copied_run_gives_the_summarys_metrics(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = loop.train(tiny_config("--optim.ema-decay=0.5"), tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    for name in ("summary.json", "config.yaml", "metrics.jsonl"):
        (tmp_path / "moved" / name).unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = runs.evaluate(pathlib.Path("../moved"))
    for key in ("accuracy", "loss", "per_class", "confusion", "examples", "checkpoint"):
        assert result[key] == summary["test"][key]


@pytest.mark.slow
def test_a_best_checkpoint_that_is_gone_is_not_replaced_by_another(
    tiny_config, tmp_path: pathlib.Path
) -> None:
    config = tiny_config("--train.epochs=3", "--checkpoint.keep-last=9")
    best = loop.train(config, tmp_path / "run")["best"]["step"]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(best))
    with pytest.raises(InputError, match=rf"the best checkpoint, step {best}, is gone.*allowed"):
        runs.evaluate(tmp_path / "run")
    assert runs.evaluate(tmp_path / "run", which="last")["examples"] == 50


@pytest.mark.slow
def test_a_run_of_four_devices_is_evaluated_on_what_there_is(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = loop.train(tiny_config("--train.devices=3", "--data.batch-size=30"), tmp_path / "run")
    assert summary["devices"]["count"] == 3
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])
    assert runs.evaluate(tmp_path / "run")["confusion"] == summary["test"]["confusion"]


@pytest.mark.slow
@pytest.mark.parametrize(("sync", "norms"), [("false", "batch norm, "), ("true", "")])
def test_a_run_that_goes_on_with_another_number_of_devices_says_what_that_changes(
    tiny_config, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], sync: str, norms: str
) -> None:
    flags = [f"--model.sync-batch-norm={sync}", "--train.epochs=1"]
    for devices, wanted in ((2, False), (2, False), (4, True)):
        loop.train(tiny_config(*flags, f"--train.devices={devices}"), tmp_path / "run")
        said = capsys.readouterr().err
        assert (f"note: on 4 devices, before on 2: {norms}dropout and" in said) == wanted


def test_a_run_with_other_settings_is_refused_naming_the_keys(
    tiny_config, tmp_path: pathlib.Path
) -> None:
    loop.train(tiny_config(), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.jsonl")}
    differing = r"data.opacity is 0.7, was 0.5; train.seed is 1, was 0"
    with pytest.raises(
        InputError, match=rf"{differing}.* with --model.init-from '.*/run' to train on"
    ):
        loop.train(tiny_config("--train.seed=1", "--data.opacity=0.7"), tmp_path / "run")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_folder_of_something_else_is_left_alone(tiny_config, tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        loop.train(tiny_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="is a file"):
        loop.train(tiny_config(), tmp_path / "thesis.txt")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.yaml").write_text("title: mine")
    with pytest.raises(InputError, match="holds other files"):
        loop.train(tiny_config(), tmp_path / "site")
    assert (tmp_path / "site" / "config.yaml").read_text() == "title: mine"
    with pytest.raises(InputError, match=r"--output-dir is .* of them a name"):
        loop.train(tiny_config(), tmp_path / ("x" * 300))


def test_a_run_that_cannot_begin_leaves_nothing(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise InputError("no")

    monkeypatch.setattr("jaxres.training.run.begin", fail)
    with pytest.raises(InputError, match="no"):
        loop.train(tiny_config(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_rows_are_kept_whole_and_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "split": split} for step in (1, 2, 3) for split in ("train", "test")]
    lines = [json.dumps(row) for row in rows]
    damaged = b"\n".join(
        [b"5", b"\xff\xfe", *(line.encode() for line in lines), b'{"step": 2, "spl']
    )
    path.write_bytes(damaged)
    keep_rows(path, 2)
    expected = [line for line, row in zip(lines, rows, strict=True) if row["split"] == "train"][:2]
    assert path.read_text() == "".join(line + "\n" for line in expected)
    path.write_text(lines[0])  # whole, but for its end of line
    keep_rows(path, 2)
    assert path.read_text() == lines[0] + "\n"


def test_a_run_killed_in_its_first_moments_can_be_started_again(
    tiny_config, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").touch()
    with start_run(tiny_config(), tmp_path / "run") as begun:
        assert begun.start.step == 0
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_two_runs_do_not_share_a_folder(tiny_config, tmp_path: pathlib.Path) -> None:
    with (
        start_run(tiny_config(), tmp_path / "run"),
        pytest.raises(InputError, match="another process is training"),
    ):
        loop.train(tiny_config(), tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("--checkpoint.every-steps=5")

    def poison(self: loop.TrainCalls, state: Any, *arguments: Any) -> Any:
        called = unplug.CALL(self, state, *arguments)
        if unplug.step_of(called.state) != 13:
            return called
        with jax.transfer_guard("allow"):
            params = jax.tree.map(lambda leaf: leaf * np.nan, called.state.params)
        return called._replace(state=called.state.replace(params=params))

    monkeypatch.setattr(loop.TrainCalls, "__call__", poison)
    with pytest.raises(TrainingFailed, match=r"loss is nan at step 15.*step 10 is kept"):
        loop.train(config, tmp_path / "run")
    assert open_run(tmp_path / "run").find("last") == 10


def test_nan_is_exit_status_one(tmp_path: pathlib.Path, tiny_flags, capfd) -> None:
    import tests.tiny  # noqa: F401

    (tmp_path / "recipe.yaml").write_text("{}")
    words = [str(tmp_path / "recipe.yaml"), "--output-dir", str(tmp_path / "run"), *tiny_flags]
    assert main(["train", *words, "--optim.name=sgd", "--optim.learning-rate=1e30"]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "at step 4" in last


@pytest.mark.parametrize(
    "when",
    [
        "crossed",
        *(slow(x) for x in ("evaluate", "announce", "evaluate_best")),
    ],
)
def test_a_signal_at_any_moment_leaves_a_run_that_goes_on(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    function = getattr(loop, when)
    raised = []

    def signalled(*arguments: Any) -> Any:
        if not raised and (when != "crossed" or arguments[0] == 13):
            raised.append(when)
            signal.raise_signal(signal.SIGTERM)
        return function(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, when, signalled)
        with pytest.raises(loop.Interrupted, match="SIGTERM: ") as stopped:
            loop.train(tiny_config(), tmp_path / "run")
        saved = open_run(tmp_path / "run").latest()
        assert ("nothing to save" if saved is None else f"saved step {saved} ") in str(stopped)
    assert len(raised) == 1
    assert loop.train(tiny_config(), tmp_path / "run")["best"]["step"] in (10, 20)


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_acts_as_usual() -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_closed_terminal_is_a_signal_to_stop_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.name == "SIGHUP"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.name is None
    finally:
        signal.signal(signal.SIGHUP, before)


KILL_FLAGS = [
    "--checkpoint.every-steps=10",
    "--checkpoint.keep-last=9",
    "--train.epochs=12",
    "--train.log-every-steps=1",
    "--model.dropout=0.2",
]


@pytest.mark.slow
def test_a_run_killed_three_times_ends_bit_equal_to_an_undisturbed_one(
    tmp_path: pathlib.Path, tiny_flags
) -> None:
    flags = [*tiny_flags, *KILL_FLAGS]
    with run(tmp_path / "straight", flags) as straight:
        straight.finish()
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # pytest shows it when the test fails
    for step in np.sort(np.random.default_rng(seed).integers(5, 115, 3)):
        with run(tmp_path / "killed", flags) as killed:
            killed.wait_for_step(int(step))
            killed.send(signal.SIGKILL)
            assert killed.wait(60) == [-signal.SIGKILL]
    with run(tmp_path / "killed", flags) as finished:
        finished.finish()
        assert "resuming from step" in finished.said()
    assert_same_end(tmp_path / "straight", tmp_path / "killed", 120)
    left = [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()]
    assert all(name.isdecimal() for name in left), left


def test_sigterm_saves_and_exits_zero(tmp_path: pathlib.Path, tiny_flags) -> None:
    flags = [*tiny_flags, *KILL_FLAGS, "--train.epochs=400"]
    with run(tmp_path / "run", flags) as process:
        process.wait_for_step(7)
        process.send(signal.SIGTERM)
        assert process.wait(60) == [0], process.tails()
        output = process.said()
    assert "SIGTERM: saved step" in output.splitlines()[-1]
    step = int(output.rsplit("saved step ", 1)[1].split()[0])
    assert open_run(tmp_path / "run").find("last") == step >= 7


def test_a_file_that_cannot_be_written_fails_in_one_sentence(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "config.yaml.tmp").mkdir()
    with pytest.raises(TrainingFailed, match=r"cannot write '.*config.yaml': Is a directory"):
        write_run_file(tmp_path / "config.yaml", "x")
    assert not (tmp_path / "config.yaml").exists()
