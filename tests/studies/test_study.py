"""Study files: every row of every study is a recipe that can be read."""

import pathlib

import pytest

from jaxres.config import recipe
from jaxres.models.build import abstract_network
from jaxres.runtime.errors import InputError
from jaxres.studies import study
from jaxres.studies.study import Profile
from tests.marked import slow

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_folder_of_that_name_without_studies_hides_none(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    assert set(study.names()) >= {"s1", "s5"}
    (tmp_path / "studies" / "mine.yaml").touch()
    assert study.names() == ["mine"]


@pytest.mark.parametrize("profile", ["mini", slow("full")])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_a_recipe_with_flags_that_fit(name: str, profile: Profile) -> None:
    chosen = study.read(name, profile)
    assert chosen.rows
    made = []
    networks = {}
    for row in chosen.rows:
        config = recipe.load(row.recipe, row.flags)
        assert (config, row.start) not in made
        made.append((config, row.start))
        own = recipe.load(row.recipe)
        if not chosen.sweep:  # one of whose values may be the recipe's own
            assert (config == own) == (not row.flags)
        shape = config.model, config.data.image_size
        if shape != (own.model, own.data.image_size):  # whose network test_recipe.py builds
            networks[shape] = config
        if row.start:
            begun = chosen.row(row.start)
            assert config.model.name == recipe.load(begun.recipe, begun.flags).model.name
    for config in networks.values():
        assert abstract_network(config, classes=10).params


def test_the_rows_of_the_scale_study_have_its_published_figures() -> None:
    rows = study.read("s1", "full").rows
    figures = [(row.study["accuracy"], row.study["loss"]) for row in rows]
    assert figures == [(0.5991, 3.9619), (0.9832, 0.0810), (0.9053, 0.4508)]


def write(folder: pathlib.Path, rows: str) -> None:
    text = "title: t\nquestion: q\nrecipes: configs\nprofiles:\n  mini:\n    about: a\n    rows:\n"
    (folder / "s.yaml").write_text(text + rows)


def test_a_row_comes_after_the_rows_it_starts_from(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path,
        "      c: {title: c, recipe: r.yaml, start: b}\n"
        "      b: {title: b, recipe: r.yaml, start: a}\n"
        "      a: {title: a, recipe: r.yaml, flags: --train.epochs 3}\n",
    )
    read = study.read("s", "mini", tmp_path)
    assert [row.name for row in read.with_starts("c")] == ["a", "b", "c"]
    assert read.row("a").flags == ("--train.epochs", "3")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("      a: {title: a, recipe: r.yaml, strat: b}\n", "is not a study"),
        ("      a: {title: a}\n", "is not a study"),
        ("      a: [1]\n", "is not a study"),
        ("      a: {title: a, recipe: r.yaml, start: b}\n", "row of study s, mini"),
        ("      a: {title: a, recipe: r.yaml, start: a}\n", "in a circle"),
        ("      a: {title: a\n", "is not a study"),
        ("      a: {title: a, recipe: r.yaml}\n    answer: As {b} says.\n", "row of study s, mini"),
        ("      a: {title: a, recipe: r.yaml}\n    answer: As {a b}.\n", "row of study s, mini"),
    ],
)
def test_a_file_that_is_no_study_is_refused(
    tmp_path: pathlib.Path, rows: str, problem: str
) -> None:
    write(tmp_path, rows)
    with pytest.raises(InputError, match=problem):
        study.read("s", "mini", tmp_path)


def test_an_answer_has_the_accuracies_of_its_rows_or_is_none(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "      a: {title: a, recipe: r.yaml}\n    answer: As {a} says.\n")
    read = study.read("s", "mini", tmp_path)
    assert read.answered({"a": 0.98251}) == "As 0.983 says."
    assert read.answered({}) == ""


def test_a_file_without_profiles_has_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "s.yaml").write_text("title: t\nprofiles:\n")
    assert study.read_all("s", tmp_path) == []
    with pytest.raises(InputError, match="is not a study with a profile mini"):
        study.read("s", "mini", tmp_path)


def test_unknown_names(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="did you mean 's1'"):
        study.read("s11", "mini")
    with pytest.raises(InputError, match="no studies in"):
        study.read("s1", "mini", tmp_path)
    with pytest.raises(InputError, match="did you mean '200pct'"):
        study.read("s1", "mini").row("20pct")
