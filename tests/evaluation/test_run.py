"""Opening a checkpoint beside a training that goes on."""

import pathlib
import shutil
from typing import Any

import pytest

from jaxres.checkpoint.reader import CheckpointReader
from jaxres.evaluation.run import evaluate, open_checkpoint
from jaxres.runtime.errors import InputError


@pytest.fixture
def copied(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> pathlib.Path:
    """A run with checkpoints of steps 10 and 20."""
    return pathlib.Path(shutil.copytree(runs[0], tmp_path / "run"))


def removing(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A training removes a checkpoint while it is read."""
    read = CheckpointReader.read_weights

    def interrupted(self: CheckpointReader, asked: int, *words: Any):
        folder = self.folder / str(asked)
        if asked == step and folder.is_dir():
            shutil.rmtree(folder)
            raise InputError(f"checkpoint '{folder}' is damaged")
        return read(self, asked, *words)

    monkeypatch.setattr(CheckpointReader, "read_weights", interrupted)


@pytest.mark.slow
def test_a_checkpoint_that_is_removed_meanwhile_gives_way_to_the_next(
    copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing(monkeypatch, 20)
    assert evaluate(copied, which="last")["checkpoint"] == 10


@pytest.mark.slow
def test_one_that_is_asked_for_by_its_number_is_missing_then(
    copied: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing(monkeypatch, 20)
    with pytest.raises(InputError, match=r"no checkpoint '20' in .*; allowed: best, last, 10"):
        open_checkpoint(copied, "20")


@pytest.mark.slow
def test_a_damaged_checkpoint_that_stays_is_damaged(copied: pathlib.Path) -> None:
    for file in (copied / "checkpoints" / "20" / "variables").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoints/20' is damaged"):
        open_checkpoint(copied, "last")
