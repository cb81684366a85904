import pathlib
import sys

import pytest

from jaxres.studies import reproduce
from jaxres.studies.reproduce import Reproduction
from jaxres.studies.study import Row, Study
from tests import tiny
from tests.conftest import TINY_FLAGS

ROWS = (
    Row("one", "first", pathlib.Path("r.yaml"), tuple(TINY_FLAGS), study={"accuracy": 0.5}),
    Row("two", "second", pathlib.Path("r.yaml"), tuple(TINY_FLAGS), start="one"),
    Row(
        "bad",
        "no such data",
        pathlib.Path("r.yaml"),
        (*TINY_FLAGS, "--data.dataset=mnist", "--data.data-dir=nowhere"),
    ),
)


@pytest.fixture
def made(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Reproduction:
    """A study of three rows, whose programs know the tests' network."""
    assert tiny.Tiny
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.setattr(reproduce, "PROGRAM", (sys.executable, "-m", "tests.tiny"))
    monkeypatch.setattr(reproduce, "DRAWN", {})
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("{}")
    study = Study("s0", "mini", "Title", "Question?", "about", ROWS)
    return Reproduction(study, tmp_path / "runs", tmp_path / "results" / "s0" / "mini.json")
