"""What a run knows of itself, through JSON and back."""

import json
import pathlib

import jax.numpy as jnp
import pytest

from jaxres.checkpoint.manager import Checkpoints
from jaxres.checkpoint.progress import Progress
from jaxres.config import CheckpointConfig


def row(step: int, accuracy: float, loss: float) -> dict:
    return {"step": step, "epoch": step / 10, "accuracy": accuracy, "loss": loss, "seconds": 1.0}


def some() -> Progress:
    progress = Progress(iterator={"next_step": 30})
    for each in (row(10, 0.5, 1.0), row(20, 0.75, 0.9), row(30, 0.75, 0.8)):
        progress.note(each)
    return progress


def test_the_best_has_the_highest_accuracy_then_the_smallest_loss() -> None:
    progress = some()
    assert progress.best == {"step": 30, "epoch": 3.0, "accuracy": 0.75, "loss": 0.8}
    progress.note(row(40, 0.75, 0.8))
    progress.note(row(50, 0.6, 0.1))
    assert progress.best is not None
    assert progress.best["step"] == 40


def test_the_best_of_what_is_left() -> None:
    progress = some()
    progress.keep_best_of([10, 20])
    assert progress.best is not None
    assert progress.best["step"] == 20
    progress.keep_best_of([])
    assert progress.best is None


def test_of_equal_evaluations_the_later_is_the_best_everywhere(tmp_path: pathlib.Path) -> None:
    progress = Progress(iterator={"next_step": 30})
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=1, keep_best=1))
    for step in (10, 20, 30):
        made = row(step, 0.5 if step == 30 else 0.75, 1.0)
        state = {"params": {"w": jnp.ones(2)}, "stats": {}, "opt_state": {}, "step": jnp.int32(0)}
        checkpoints.save(step, state, progress=progress.to_json(), config={})
        checkpoints.wait()
        progress.note(made)
        checkpoints.add_evaluation(step, made)
    assert checkpoints.steps() == [20, 30]
    assert checkpoints.find("best") == 20
    checkpoints.close()
    assert progress.best is not None
    assert progress.best["step"] == 20
    progress.keep_best_of([10, 20, 30])
    assert progress.best["step"] == 20


def test_json_and_back() -> None:
    progress = some()
    value = json.loads(json.dumps(progress.to_json()))
    assert Progress.from_json(value, 30) == progress
    value["history"].append("later")
    assert len(progress.history) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("iterator", {"next_step": 29}),
        ("iterator", None),
        ("totals", {"pictures": 1.0}),
        ("history", {"10": 0.5}),
        ("history", [{"step": 10}]),
        ("history", [row(10, float("nan"), 1.0)]),
        ("best", {"step": "10", "epoch": 1.0, "accuracy": 0.5, "loss": 1.0}),
        ("best", [1]),
        ("rollbacks", [3]),
        ("compile_cache", 3),
    ],
)
def test_what_no_run_wrote_is_refused(key: str, value: object) -> None:
    made = {**some().to_json(), key: value}
    with pytest.raises(ValueError, match=f"its progress has '{key}'"):
        Progress.from_json(made, 30)
