"""Data workers that die while a run needs them."""

import os
import pathlib
import signal

import psutil
import pytest

from tests.faults.runs import Run, rows, run, weights
from tests.tiny import WORKERS_LIMIT

FLAGS = ["--data.render=host", "--train.epochs=20", "--train.log-every-steps=1"]


def workers(run: Run) -> list[psutil.Process]:
    """The processes that render for a run."""
    children = psutil.Process(run.processes[0].pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_workers_that_are_killed_are_started_again_and_nothing_is_different(
    tmp_path: pathlib.Path, tiny_flags: list[str]
) -> None:
    flags = [*tiny_flags, *FLAGS]
    with run(tmp_path / "straight", flags) as straight:
        straight.finish()
    with run(tmp_path / "killed", [*flags, "--data.workers=2"]) as killed:
        for step in (12, 60):
            killed.wait_for_step(step)
            os.kill(workers(killed)[0].pid, signal.SIGKILL)
        killed.finish()
        assert killed.said().count("starting the workers again") == 2
    for left, right in zip(
        weights(tmp_path / "straight"), weights(tmp_path / "killed"), strict=True
    ):
        assert (left == right).all()
    steps = [row["step"] for row in rows(tmp_path / "killed", "train")]
    assert steps == list(range(1, 201))


@pytest.mark.slow
def test_workers_that_give_nothing_end_the_run(
    tmp_path: pathlib.Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKERS_LIMIT, "10")
    flags = [*tiny_flags, *FLAGS, "--train.epochs=4000", "--data.workers=2"]
    with run(tmp_path / "run", flags) as stalled:
        stalled.wait_for_step(12)
        stopped = workers(stalled)
        for worker in stopped:
            worker.suspend()
        assert stalled.wait(60) == [1], stalled.tails()
        (said,) = stalled.errors()
    assert said.startswith("error: the data workers have given no batch for 10 s (batch ")
    _, alive = psutil.wait_procs(stopped, timeout=10)
    assert not alive
