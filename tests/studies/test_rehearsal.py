import dataclasses
import pathlib

import pytest

from jaxres.config import recipe
from jaxres.studies import study
from jaxres.studies.rehearsal import STEPS, rehearse, shortened
from jaxres.studies.reproduce import Reproduction
from tests.studies.conftest import ROWS


@pytest.mark.slow
def test_it_says_which_rows_would_fail_and_keeps_nothing(made: Reproduction) -> None:
    before = sorted(pathlib.Path().iterdir())
    one, _, bad = ROWS
    problems = rehearse(dataclasses.replace(made.study, rows=(one, bad)))
    assert problems["one"] == ""
    assert "is not prepared" in problems["bad"]
    assert sorted(pathlib.Path().iterdir()) == before


def test_every_phase_of_every_row_is_reached() -> None:
    for name in study.names():
        for row in study.read(name, "full").rows:
            config = recipe.load(row.recipe, shortened(row).flags)
            steps = (config.train.limit_train_examples or 0) // config.data.batch_size
            unfreezings = [epoch for epoch, _ in config.transfer.unfreezing()]
            assert config.train.epochs == 1 + max(unfreezings, default=0)
            assert config.train.epochs * steps >= STEPS


def test_a_wrong_recipe_is_left_to_be_told_when_it_is_run() -> None:
    row = dataclasses.replace(ROWS[0], recipe=pathlib.Path("nowhere.yaml"))
    assert shortened(row) == row
