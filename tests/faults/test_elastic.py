"""One run on changing numbers of processes and devices: the same images, the same losses."""

import pathlib
import signal

import numpy as np
import pytest

from tests.faults.runs import plans, rows, run, weights
from tests.marked import slow
from tests.tiny import PLAN_LOG

# SGD: Adam divides by the gradient's size, so that rounding decides where a gradient is tiny. Small
# steps, since training makes differences of rounding larger.
FLAGS = [
    "--train.join-timeout-s=120",
    "--train.log-every-steps=1",
    "--model.sync-batch-norm=True",
    "--optim.name=sgd",
    "--optim.learning-rate=3e-4",
    "--data.placement=random",
    "--checkpoint.keep-last=2",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [
        [(2, 2, "jit"), (1, 1, "pmap")],
        slow([(4, 1, "jit"), (1, 1, "jit"), (2, 4, "pmap")]),
    ],
    ids=["2-1", "4-1-2"],
)
def test_a_run_goes_on_with_other_numbers_of_processes(
    tmp_path: pathlib.Path,
    tiny_flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    stages: list[tuple[int, int, str]],
) -> None:
    """`stages` are processes, devices in each, and how the step is compiled."""
    flags = [*tiny_flags, *FLAGS, f"--train.epochs={6 * len(stages)}"]
    monkeypatch.setenv(PLAN_LOG, str(tmp_path / "straight.plans"))
    with run(tmp_path / "straight", flags) as straight:
        straight.finish()
    monkeypatch.setenv(PLAN_LOG, str(tmp_path / "moved.plans"))
    reached = 0
    for processes, devices, mode in stages:
        words = [*flags, f"--train.parallel={mode}"]
        with run(tmp_path / "moved", words, processes=processes, devices=devices) as moved:
            if (processes, devices, mode) == stages[-1]:
                moved.finish()
                break
            moved.wait_for_step(reached + 7)
            moved.send(signal.SIGTERM, process=processes - 1)
            assert moved.wait() == [0] * processes, moved.tails()
            reached = int(rows(tmp_path / "moved", "train")[-1]["step"])
    ours, theirs = rows(tmp_path / "moved", "train"), rows(tmp_path / "straight", "train")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    # Other numbers of devices add in another order, a difference that training makes larger.
    losses = [np.array([row["loss"] for row in each]) for each in (ours, theirs)]
    np.testing.assert_allclose(losses[0][:50], losses[1][:50], rtol=2e-5)
    np.testing.assert_allclose(*losses, rtol=1e-3)
    for left, right in zip(weights(tmp_path / "moved"), weights(straight.run_dir), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-2, atol=1e-3)
    assert plans(tmp_path / "moved.plans") == plans(tmp_path / "straight.plans")
