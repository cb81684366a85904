"""The page of all studies says what was measured, what failed and what was not run."""

import json
import pathlib
import shutil

import pytest

from jaxres.studies import overview

STUDY = """
title: "S0: a study"
question: Why?
recipes: configs
profiles:
  full: {about: large, rows: {one: {title: first, recipe: r.yaml}}}
  mini:
    about: small
    rows:
      one: {title: first, recipe: r.yaml, study: {accuracy: 0.5}}
      two: {title: second, recipe: r.yaml}
"""


def row(title: str, seeds: int) -> dict:
    spread = {"mean": 0.7, "min": 0.61234, "max": 0.8}
    return {
        "title": title,
        "runs": {str(seed): {} for seed in range(seeds)},
        "failed": {},
        "study": {"accuracy": 0.5},
        "accuracy": spread if seeds else None,
        "loss": spread if seeds else None,
    }


@pytest.fixture
def results(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "s0.yaml").write_text(STUDY)
    made = tmp_path / "results" / "s0"
    made.mkdir(parents=True)
    rows = {"one": row("first", 3), "two": row("second", 0)}
    (made / "mini.json").write_text(json.dumps({"rows": rows}))
    return tmp_path / "results"


def written(results: pathlib.Path) -> str:
    return overview.write(results, results.parent / "studies").read_text()


def test_rows_profiles_and_where_the_numbers_are_from(results: pathlib.Path) -> None:
    text = written(results)
    assert "## S0: a study" in text
    assert "**full**: large. Not run." in text
    assert "([page](s0/mini.html), [JSON](s0/mini.json))" in text
    assert "| first | 0.7000 | 0.6123 to 0.8000 | 0.7000 | 3 | 0.5 |" in text
    assert "| second | not run |  |  |  | 0.5 |" in text
    assert "![" not in text


def test_the_answer_is_above_its_table(results: pathlib.Path) -> None:
    made = results / "s0" / "mini.json"
    made.write_text(json.dumps(json.loads(made.read_text()) | {"answer": "The first."}))
    text = written(results)
    assert text.index("Why?") < text.index("**Answer, mini.** The first.") < text.index("| first |")


def test_the_matrix_comes_before_the_curves(results: pathlib.Path) -> None:
    for name in ("validation_accuracy", "matrix"):
        (results / "s0" / f"mini_{name}.svg").write_text("<svg/>")
        assert f"](s0/mini_{name}.svg)" in written(results)


def test_damaged_results_of_one_study_hide_no_other(results: pathlib.Path) -> None:
    (results / "s0" / "mini.json").write_text('{"rows": ')
    text = written(results)
    assert "`s0/mini.json` is damaged" in text
    assert "**full**: large. Not run." in text


def test_the_published_page_is_that_of_the_published_results(tmp_path: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[2]
    copied = pathlib.Path(shutil.copytree(root / "results", tmp_path / "results"))
    published = (copied / overview.NAME).read_text()
    # If not: `jaxres reproduce STUDY --pages-only` writes it again.
    assert overview.write(copied, root / "studies").read_text() == published
