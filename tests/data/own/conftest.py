"""Datasets of a user's own, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jaxres.config import Config, recipe
from tests.data.own.forms import write_pets

Make = Callable[..., Path]
Settings = Callable[..., Config]


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """The small dataset as a folder."""
    return write_pets(tmp_path / "pets")


@pytest.fixture
def settings(tiny_flags: list[str], tmp_path: Path) -> Settings:
    """`make(dataset, *flags)`: the settings of a small run on it."""

    def make(dataset: str, *flags: str) -> Config:
        own = [f"--data.dataset={dataset}", "--data.composition=plain", "--data.batch-size=8"]
        where = f"--data.data-dir={tmp_path / 'data'}"
        held_out = "--data.validation-examples=null"
        words = [*tiny_flags, *own, where, held_out, *flags]
        return recipe.parse(Config, words, prog="test")

    return make
