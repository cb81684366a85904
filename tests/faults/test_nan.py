"""A loss that is not a number in one step, and what `train.on_nan` makes of it."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.checkpoint.manager import Checkpoints
from jaxres.config import Config
from jaxres.data.composed import open_split
from jaxres.data.pipeline import train_batches
from jaxres.logs.window import Window
from jaxres.ops import losses
from jaxres.runtime.errors import TrainingFailed
from jaxres.training import loop, not_finite, optim
from jaxres.training import losses as registered
from jaxres.training.setup import Setup
from jaxres.training.state import TrainState
from tests.faults.runs import rows, weights
from tests.training.unplug import unplugged_at

FLAGS = [
    "--train.devices=1",
    "--train.log-every-steps=1",
    "--checkpoint.every-steps=5",
    "--checkpoint.keep-last=9",
]
BAD = 13  # the step, of 20, whose loss is not a number; counted from 1


@pytest.fixture
def poisoned(tiny_config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """`poisoned(*flags)`: settings whose batch of a step has a loss that is not a number."""

    def poison(*flags: str, step: int = BAD) -> Config:
        config = tiny_config(*FLAGS, "--train.loss=poisoned", *flags)
        batches = train_batches(open_split(config, "train"), config)
        labels = [np.asarray(next(batches)["label"]) for _ in range(20)]
        batches.close()
        bad = labels[step - 1]
        assert sum((each == bad).all() for each in labels) == 1
        plain = losses.cross_entropy

        def cross_entropy(logits, labels, **smoothing):
            values = plain(logits, labels, **smoothing)
            return values * jnp.where(jnp.all(labels == bad), jnp.nan, 1.0)

        monkeypatch.setitem(registered._LOSSES, "poisoned", cross_entropy)
        return config

    return poison


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--train.steps-per-call=4", "--train.parallel=pmap"]])
def test_skip_leaves_out_the_step(
    poisoned,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture,
    more: list[str],
) -> None:
    config = poisoned("--train.on-nan=skip", *more)
    loop.train(config, tmp_path / "run")
    logged = rows(tmp_path / "run", "train")
    assert logged[-1]["step"] == 20
    # Alone in its window, a skipped step has no row.
    assert sum(row["skipped_steps"] for row in logged) == len(more) // 2
    assert [row["step"] for row in logged][-3:] == ([14, 18, 20] if more else [18, 19, 20])
    assert len(logged) == (6 if more else 19)
    assert np.isfinite([row["loss"] for row in logged]).all()
    assert f"1 of the steps up to {BAD + 1 if more else BAD} skipped" in capsys.readouterr().err
    assert all(np.isfinite(leaf).all() for leaf in weights(tmp_path / "run"))


@pytest.mark.slow
def test_a_skipped_step_changes_nothing_but_the_step(poisoned, tmp_path: pathlib.Path) -> None:
    config = poisoned("--train.on-nan=skip", "--checkpoint.every-steps=1")
    loop.train(config, tmp_path / "run")
    kept = [weights(tmp_path / "run", step) for step in (BAD - 1, BAD, BAD + 1)]
    same = [all(map(np.array_equal, kept[0], other)) for other in kept[1:]]
    assert same == [True, False]


@pytest.mark.slow
def test_skipping_has_an_end(
    poisoned, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(not_finite, "MAX_SKIPPED", 1)
    config = poisoned("--train.on-nan=skip")
    with pytest.raises(TrainingFailed, match=f"last 1 steps up to {BAD}.*step 10 is kept"):
        loop.train(config, tmp_path / "run")


def test_rollback_goes_on_from_the_last_checkpoint(
    poisoned,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    config = poisoned("--train.on-nan=rollback")
    roll_back = loop.roll_back
    taken_back = []

    def noted(setup: Setup, checkpoints: Checkpoints, saved: int, step: int) -> TrainState:
        state = roll_back(setup, checkpoints, saved, step)
        found = jax.device_get(setup.strategy.leave(state))
        taken_back.append((step, int(found.step), jax.tree.leaves(found.params)))
        return state

    monkeypatch.setattr(loop, "roll_back", noted)
    loop.train(config, tmp_path / "run")
    ((step, counted, params),) = taken_back
    assert step == counted == BAD
    before = weights(tmp_path / "run", 10)
    assert all(any(np.array_equal(leaf, other) for other in before) for leaf in params)
    assert "resuming from the state of step 10 (1 of at most 5 times)" in capsys.readouterr().err
    logged = [row["step"] for row in rows(tmp_path / "run", "train")]
    assert logged == [step for step in range(1, 21) if step != BAD]


@pytest.mark.slow
def test_rollback_at_the_end_of_an_epoch_leaves_unfreezing_to_the_next(
    poisoned, tmp_path: pathlib.Path
) -> None:
    frozen = ("--transfer.freeze", "conv*", "--transfer.unfreeze", "1:conv*")
    config = poisoned("--train.on-nan=rollback", *frozen, step=10)
    loop.train(config, tmp_path / "straight")
    with unplugged_at(10):
        loop.train(config, tmp_path / "broken")
    loop.train(config, tmp_path / "broken")
    ends = [weights(tmp_path / run) for run in ("straight", "broken")]
    assert all(map(np.array_equal, *ends))


@pytest.mark.slow
def test_a_stopped_run_is_resumed_with_another_on_nan(poisoned, tmp_path: pathlib.Path) -> None:
    stopped = f"loss is nan at step {BAD}.*step 10 is kept.*--train.on-nan skip or rollback"
    with pytest.raises(TrainingFailed, match=stopped):
        loop.train(poisoned(), tmp_path / "run")
    loop.train(poisoned("--train.on-nan=skip"), tmp_path / "run")
    assert rows(tmp_path / "run", "train")[-1]["step"] == 20


@pytest.mark.slow
def test_rollback_has_an_end(
    poisoned, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(not_finite, "MAX_ROLLBACKS", 0)
    config = poisoned("--train.on-nan=rollback")
    with pytest.raises(TrainingFailed, match=f"loss is nan at step {BAD}"):
        loop.train(config, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_the_rate_that_is_applied_is_the_one_of_the_step(
    poisoned, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, on_nan: str
) -> None:
    sgd = ("--optim.name=sgd", "--optim.momentum=0", "--optim.schedule=cosine")
    config = poisoned(f"--train.on-nan={on_nan}", *sgd)
    close = Window.close
    windows = []

    def noted(window: Window) -> dict[str, float]:
        windows.append(close(window))
        return windows[-1]

    monkeypatch.setattr(Window, "close", noted)
    loop.train(config, tmp_path / "run")
    finite = [each for each in windows if each and np.isfinite(each["update_norm"])]
    applied = [each["update_norm"] / each["grad_norm"] for each in finite]
    schedule = optim.learning_rate(config.optim, 20)
    wanted = [float(schedule(step)) for step in range(20) if step != BAD - 1]
    np.testing.assert_allclose(applied, wanted, rtol=1e-4)
    np.testing.assert_allclose([each["learning_rate"] for each in finite], wanted, rtol=1e-4)
