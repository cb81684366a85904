"""Datasets of a user's own, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jaxres.config import Config, recipe
from tests.data.conftest import write_photo

Make = Callable[..., Path]
Settings = Callable[..., Config]
CLASSES = {"cat": 14, "dog": 11, "owl": 12}


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Three classes of photographs of one size, in files of several formats."""
    root = tmp_path / "pets"
    for place, (name, count) in enumerate(CLASSES.items()):
        for number in range(count):
            suffix = (".jpg", ".png", ".webp", ".JPEG")[number % 4]
            write_photo(root / name / f"{number}{suffix}", 100 * place + number, width=70)
    return root


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
