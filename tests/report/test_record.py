"""What a run directory says of its run."""

import json
import pathlib
import shutil

import pytest

from jaxres.report import record
from jaxres.runtime.errors import InputError


@pytest.fixture
def copied(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(runs[0], tmp_path / "run"))


def test_an_ended_run(runs: list[pathlib.Path]) -> None:
    made = record.read(runs[1])
    assert made["settings"]["optim.learning_rate"] == 1e-3
    assert [row["step"] for row in made["train"]] == [4, 8, 10, 12, 16, 20]
    assert [row["epoch"] for row in made["validation"]] == [1.0, 2.0]
    summary = json.loads((runs[1] / "summary.json").read_text())
    assert made["test"] == summary["test"]
    assert made["command"] == summary["command"]


def test_operations_are_those_of_the_runs_own_network(copied: pathlib.Path) -> None:
    # The tests' network at 32 pixels, by hand: two strided convolutions and a linear layer.
    convolutions = 2 * (16 * 16 * 8 * 27 + 8 * 8 * 16 * 72)
    assert record.read(copied)["gflop"] == (convolutions + 2 * 16 * 10) / 1e9
    settings = copied / "config.yaml"
    text = settings.read_text()
    assert "head: null" in text
    settings.write_text(text.replace("head: null", "head: flatten"))
    assert record.read(copied)["gflop"] == (convolutions + 2 * 8 * 8 * 16 * 10) / 1e9


def test_a_sweep_may_be_of_words(copied: pathlib.Path) -> None:
    rows = [{"value": each, "accuracy": 0.5} for each in ("center", "random")]
    content = {"sweep": "data.placement", "command": "jaxres evaluate", "results": rows}
    (copied / "sweep.json").write_text(json.dumps(content))
    assert record.read(copied)["sweep"] == content
    for damaged in ({"results": []}, {"sweep": 1}, {"results": [{"value": 8, "accuracy": 0.5}]}):
        (copied / "sweep.json").write_text(json.dumps(content | damaged))
        with pytest.raises(InputError, match=r"sweep.json' is damaged"):
            record.read(copied)


def test_the_side_is_that_of_padded_images(copied: pathlib.Path) -> None:
    assert record.read(copied)["picture_side"] == 32
    settings = copied / "config.yaml"
    settings.write_text(settings.read_text().replace("pad: null", "pad: 48"))
    assert record.read(copied)["picture_side"] == 48


def test_a_run_that_goes_on_has_no_test(copied: pathlib.Path) -> None:
    (copied / "summary.json").unlink()
    made = record.read(copied)
    assert "test" not in made
    assert len(made["validation"]) == 2


@pytest.mark.parametrize("gone", ["config.yaml", "metrics.jsonl"])
def test_what_is_no_run_is_refused(copied: pathlib.Path, gone: str) -> None:
    (copied / gone).unlink()
    with pytest.raises(InputError, match="is not a run directory"):
        record.read(copied)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.jsonl", '{"step": 1}\n'),
        ("metrics.jsonl", "[" * 9999),
        ("metrics.jsonl", "\xff"),
        ("summary.json", "[1, 2]"),
        ("summary.json", '{"test": {"accuracy": "high"}}'),
    ],
)
def test_damaged_files_are_refused(copied: pathlib.Path, name: str, text: str) -> None:
    (copied / name).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"the files of .* are damaged"):
        record.read(copied)


@pytest.mark.parametrize(
    "data", [{}, {"partial": 1}, {"train": {"examples": 9, "checksum": None}}, {"test": {}}]
)
def test_damaged_words_of_the_data_are_refused(copied: pathlib.Path, data: dict) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["data"] = summary["data"] | data if data else {}
    (copied / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="are damaged"):
        record.read(copied)


@pytest.mark.parametrize(
    ("key", "value"),
    [("accuracy", None), ("confusion", [[1, 2], [3]]), ("per_class", [{"precision": 1.0}])],
)
def test_a_summary_without_its_tables_is_refused(
    copied: pathlib.Path, key: str, value: object
) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["test"][key] = value
    (copied / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match="are damaged"):
        record.read(copied)
