"""Two ended runs of the tests' network."""

import pathlib

import pytest

from jaxres import recipe
from jaxres.config import Config
from jaxres.training import loop
from tests import tiny
from tests.conftest import TINY_FLAGS

assert tiny.Tiny


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """Run directories `first` and `second`, which differ in their learning rate and seed."""
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, flags in (
        ("first", ["--train.seed=0"]),
        ("second", ["--train.seed=1", "--optim.learning-rate=1e-3"]),
    ):
        config = recipe.parse(Config, [*TINY_FLAGS, *flags], prog="test")
        loop.train(config, folder / name)
        made.append(folder / name)
    return made
