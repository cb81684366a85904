"""A run directory of an older JaxRes, commit 6e534d4, still serves.

`run_6e534d4.tar.gz` holds a run of 30 steps on four virtual devices that was killed after step 15:
the settings of `tiny_config` with those below, made with jax 0.10.2.
"""

import json
import pathlib
import tarfile

import pytest

from jaxres.data.own import unpacking
from jaxres.evaluation import run as runs
from jaxres.training import loop

ARCHIVE = pathlib.Path(__file__).with_name("run_6e534d4.tar.gz")
FLAGS = (
    "--train.epochs=3",
    "--train.log-every-steps=5",
    "--optim.ema-decay=0.9",
    "--checkpoint.every-steps=5",
)
# What the old code logged of the same run left alone: its last window, and its evaluations.
LAST_TRAIN_LOSS = 2.309615135192871
VALIDATION_LOSS = {10: 2.309667501449585, 20: 2.337054343223572, 30: 2.320802297592163}


@pytest.fixture
def run_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """The run directory, unpacked."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, **unpacking.FILTER)
    return tmp_path / "run_6e534d4"


def test_it_is_evaluated(tiny_config, run_dir: pathlib.Path) -> None:
    assert tiny_config  # registers its network
    found = runs.evaluate(run_dir, which="best", split="validation")
    assert found["checkpoint"] == 10
    assert found["loss"] == pytest.approx(VALIDATION_LOSS[10], rel=1e-5)


def test_it_is_resumed_and_ends_as_it_would_have(tiny_config, run_dir: pathlib.Path) -> None:
    summary = loop.train(tiny_config(*FLAGS), run_dir)
    rows = [
        json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().split("\n") if line
    ]
    train = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in train] == [5, 10, 15, 20, 25, 30]
    assert train[-1]["loss"] == pytest.approx(LAST_TRAIN_LOSS, rel=1e-3)
    evaluated = {row["step"]: row["loss"] for row in rows if row["split"] == "validation"}
    assert evaluated == pytest.approx(VALIDATION_LOSS, rel=1e-3)
    assert summary["best"]["step"] == 10
