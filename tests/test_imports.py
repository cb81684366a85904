"""The packages import one way: JaxRes from the command line down, the benchmarks likewise."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the bottom up: a package imports those of lower rows, and none beside it.
ROWS = {
    "jaxres": (
        ("runtime",),
        ("config",),
        ("image", "ops"),
        ("models",),
        ("data",),
        ("distributed",),
        ("checkpoint",),
        ("logs",),
        ("evaluation",),
        ("training",),
        ("explain", "report", "weights"),
        ("studies",),
        ("api", "cli"),
    ),
    "benchmarks": (
        ("hardware", "timing"),
        ("compiled", "convolutions", "peers"),
        ("steps",),
    ),
}
LEVEL = {
    (root, package): level
    for root, rows in ROWS.items()
    for level, row in enumerate(rows)
    for package in row
}
MODULES = {root: sorted((ROOT / root).glob("*/**/*.py")) for root in ROWS}
MOST_LINES = 300
MOST_MODULES = 16


def imported(path: pathlib.Path) -> Iterator[str]:
    """The absolute names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("root", "package"), LEVEL)
def test_a_package_imports_lower_ones_only(root: str, package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES[root]
        if path.relative_to(ROOT).parts[1] == package
        for name in imported(path)
        if name.startswith(f"{root}.")
        and (other := (root, name.split(".")[1])) in LEVEL
        and other != (root, package)
        and LEVEL[other] >= LEVEL[root, package]
    ]
    assert wrong == []


def test_every_package_has_its_row() -> None:
    found = {(root, path.relative_to(ROOT).parts[1]) for root in ROWS for path in MODULES[root]}
    assert found == LEVEL.keys()


def test_the_package_imports_no_benchmark_and_no_test() -> None:
    names = {name.split(".")[0] for path in MODULES["jaxres"] for name in imported(path)}
    assert not names & {"benchmarks", "tests"}


@pytest.mark.parametrize("root", [*ROWS, "tests"])
def test_folders_and_files_are_small(root: str) -> None:
    files = sorted((ROOT / root).rglob("*.py"))
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    if root != "tests":
        assert long == {}, f"files of more than {MOST_LINES} lines: split them"
    folders = {path.parent for path in files}
    crowded = [str(each) for each in folders if len([*each.glob("[!_]*.py")]) > MOST_MODULES]
    assert crowded == [], f"folders of more than {MOST_MODULES} modules: split them"
