"""Several processes as one run: the same numbers, one end for all, and clear refusals."""

import pathlib
import signal
import time
from collections.abc import Callable

import chex
import numpy as np
import pytest

from tests.faults.runs import LONGEST_S, ROOT, Run, rows, run, variables, weights
from tests.marked import slow

FLAGS = ["--train.join-timeout-s=60", "--train.log-every-steps=1"]


@pytest.mark.parametrize("mode", ["jit", slow("pmap")])
def test_two_processes_of_two_devices_train_as_one_of_four(
    tmp_path: pathlib.Path, tiny_flags: list[str], mode: str
) -> None:
    # SGD: Adam divides by the gradient's size, so that rounding decides where a gradient is tiny.
    flags = [*tiny_flags, *FLAGS, f"--train.parallel={mode}", "--optim.name=sgd"]
    flags += ["--train.epochs=1"]
    with run(tmp_path / "two", flags, processes=2, devices=2) as two:
        two.finish()
        assert "test accuracy" in two.said(0)
        assert "epoch" not in two.said(1)
    with run(tmp_path / "one", flags, devices=4) as one:
        one.finish()
    for left, right in zip(weights(tmp_path / "two"), weights(tmp_path / "one"), strict=True):
        # The sums over devices are taken in another order.
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-6)
    for split in ("train", "validation", "test"):
        ours, theirs = rows(tmp_path / "two", split), rows(tmp_path / "one", split)
        assert [row["step"] for row in ours] == [row["step"] for row in theirs]
        np.testing.assert_allclose(
            [row["loss"] for row in ours], [row["loss"] for row in theirs], rtol=1e-5
        )
        assert [row["accuracy"] for row in ours] == [row["accuracy"] for row in theirs]


@pytest.fixture
def assert_same_bits(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """`check(flags)`: two processes of two devices and one of four come to the same bits.

    Added in the devices' order, sums do not depend on where the devices are. Nor, with as many
    threads in each process, does how XLA cuts up a device's own loops.
    """
    monkeypatch.setenv("NPROC", "4")

    def check(flags: list[str], recipe: pathlib.Path | None = None) -> None:
        flags = [*flags, *FLAGS, "--train.reduction=ordered"]
        one, two = tmp_path / "one", tmp_path / "two"
        with run(two, flags, processes=2, devices=2, recipe=recipe) as each:
            each.finish(LONGEST_S)
        with run(one, flags, devices=4, recipe=recipe) as each:
            each.finish(LONGEST_S)
        chex.assert_trees_all_equal([*weights(two)], [*weights(one)])
        for split in ("train", "validation", "test"):
            losses = [[row["loss"] for row in rows(each, split)] for each in (one, two)]
            assert losses[0] == losses[1]

    return check


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", slow("pmap")])
def test_ordered_sums_give_the_same_bits(
    assert_same_bits, tiny_flags: list[str], mode: str
) -> None:
    assert_same_bits([*tiny_flags, f"--train.parallel={mode}"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_the_quickstart_gives_the_same_bits(assert_same_bits, mode: str) -> None:
    recipe = ROOT / "configs" / "quickstart.yaml"
    assert_same_bits([f"--train.parallel={mode}"], recipe=recipe)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, slow(signal.SIGINT)])
def test_a_signal_to_one_process_saves_and_ends_all_and_the_run_goes_on_with_fewer(
    tmp_path: pathlib.Path, tiny_flags: list[str], number: signal.Signals
) -> None:
    flags = [*tiny_flags, *FLAGS, "--train.epochs=400", "--stopped-status=75"]
    with run(tmp_path / "run", flags, processes=2) as several:
        several.wait_for_step(5)
        several.send(number, process=1)
        assert several.wait() == [75, 75], several.tails()
        said = [several.said(k).splitlines()[-1] for k in range(2)]
    assert said[0] == said[1]
    assert "saved step" in said[0]
    step = int(said[0].split("saved step ")[1].split()[0])
    with run(tmp_path / "run", flags) as alone:
        alone.wait_for_step(step + 2)
        assert f"resuming from step {step} " in alone.said()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "number"),
    [
        (1, signal.SIGKILL),
        slow(1, signal.SIGSTOP),
        slow(0, signal.SIGKILL),
        slow(0, signal.SIGSTOP),
    ],
)
def test_the_others_stop_when_a_process_is_lost(
    tmp_path: pathlib.Path, tiny_flags: list[str], number: signal.Signals, process: int
) -> None:
    flags = [*tiny_flags, *FLAGS, "--train.epochs=4000", "--train.peer-timeout-s=10"]
    with run(tmp_path / "run", flags, processes=2) as several:
        several.wait_for_step(12)
        several.send(number, process)
        began = time.monotonic()
        status = several.processes[1 - process].wait(120)
        seconds = time.monotonic() - began
        said = several.said(1 - process)
    assert status != 0
    assert seconds < 40, said
    if (process, number) == (0, signal.SIGKILL):  # JAX itself is quicker
        assert "another task died" in said or "has not answered" in said
    else:
        problem = f"error: process {process} of 2 has not answered for 10 s: stopped; "
        (line,) = [line for line in said.splitlines() if line.startswith(problem)]
        assert "the same command resumes from" in line


@pytest.mark.slow
def test_a_run_whose_processes_do_not_all_come_gives_up(
    tmp_path: pathlib.Path, tiny_flags: list[str]
) -> None:
    flags = [*tiny_flags, "--train.join-timeout-s=3"]
    for present in (0, 1):
        variables_of = variables(2)[present]
        (tmp_path / "recipe.yaml").write_text("{}")
        one = Run(tmp_path / "run", [flags], environment=[variables_of])
        try:
            assert one.wait(60) == [2], one.tails()
        finally:
            one.kill()
        coordinator = variables_of["JAXRES_COORDINATOR"]
        assert one.errors() == [
            f"error: the run's processes have not all come together ({coordinator}) within 3 s"
        ]
        one.logs[0].unlink()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("each", "devices", "problem"),
    [
        (
            [[], ["--optim.learning-rate=1"]],
            1,
            "process 1 has optim.learning_rate 1.0, process 0 has 0.003; start all 2",
        ),
        ([["--data.batch-size=30"]] * 2, 2, "data.batch_size is 30, which does not divide over 4"),
        ([[], ["--data.data-dir=/nowhere", "--data.dataset=mnist"]], 1, "process 1 of 2 stopped: "),
        ([["--train.devices=1"]] * 2, 1, "train.devices is 1, with 2 processes; allowed: all 2"),
    ],
    ids=["settings", "batch", "data", "devices"],
)
def test_processes_that_do_not_fit_are_refused_and_nothing_is_made(
    tmp_path: pathlib.Path,
    tiny_flags: list[str],
    each: list[list[str]],
    devices: int,
    problem: str,
) -> None:
    flags = [*tiny_flags, *FLAGS]
    with run(tmp_path / "run", flags, processes=2, devices=devices, each=each) as wrong:
        assert wrong.wait(90) == [2, 2], wrong.tails()
        assert problem in wrong.errors()[0], wrong.tails()
        assert wrong.errors()[1], wrong.tails()
    assert not (tmp_path / "run").exists()
