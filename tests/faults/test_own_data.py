"""Runs on a user's own images that are killed and go on elsewhere."""

import pathlib
import shutil
import signal

import chex
import pytest

from tests.data.own.forms import FORMS, Form, write_pets
from tests.faults.runs import plans, run, weights
from tests.tiny import PLAN_LOG

FLAGS = [
    *("--data.composition=plain", "--data.render=host", "--data.batch-size=8"),
    *("--data.canvas=32", "--data.short-side=36", "--data.validation-examples=null"),
    *("--augment.policy=imagenet", "--train.limit-train-examples=null", "--train.epochs=12"),
    *("--train.reduction=ordered", "--train.log-every-steps=1", "--checkpoint.every-steps=3"),
    "--train.join-timeout-s=120",
]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_run_goes_on_elsewhere_and_nothing_is_different(
    tmp_path: pathlib.Path, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    """Begun by two processes of two devices, it goes on in one of four, and in one of two."""
    monkeypatch.setenv("NPROC", "4")  # as many threads in each, for the same bits
    dataset = form(write_pets(tmp_path / "pets"))
    flags = [*tiny_flags, *FLAGS, f"--data.dataset={dataset}"]
    flags.append(f"--data.data-dir={tmp_path / 'data'}")
    monkeypatch.setenv(PLAN_LOG, str(tmp_path / "straight.plans"))
    with run(tmp_path / "straight", flags, devices=4) as straight:
        straight.finish()
    monkeypatch.setenv(PLAN_LOG, str(tmp_path / "moved.plans"))
    with run(tmp_path / "moved", flags, processes=2, devices=2) as moved:
        moved.wait_for_step(10)
        for process in (0, 1):
            moved.send(signal.SIGKILL, process)
        assert moved.wait() == [-signal.SIGKILL] * 2
    shutil.copytree(tmp_path / "moved", tmp_path / "smaller")

    with run(tmp_path / "moved", [*flags, "--data.workers=2"], devices=4) as moved:
        moved.finish()
    chex.assert_trees_all_equal([*weights(tmp_path / "straight")], [*weights(tmp_path / "moved")])

    with run(tmp_path / "smaller", flags, devices=2) as smaller:
        smaller.finish()
    assert plans(tmp_path / "moved.plans") == plans(tmp_path / "straight.plans")
