"""The packages of JaxRes import one way, from the command line down to the runtime."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# From the bottom up: a package imports those of lower rows, and none beside it.
ROWS = (
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
    ("cli",),
)
LEVEL = {package: level for level, row in enumerate(ROWS) for package in row}
MODULES = sorted((ROOT / "jaxres").glob("*/**/*.py"))
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


@pytest.mark.parametrize("package", LEVEL)
def test_a_package_imports_lower_ones_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[1] == package
        for name in imported(path)
        if name.startswith("jaxres.")
        and (other := name.split(".")[1]) in LEVEL
        and other != package
        and LEVEL[other] >= LEVEL[package]
    ]
    assert wrong == []


def test_every_package_has_its_row() -> None:
    assert {path.relative_to(ROOT).parts[1] for path in MODULES} == LEVEL.keys()


def test_the_package_imports_no_benchmark_and_no_test() -> None:
    names = {name.split(".")[0] for path in MODULES for name in imported(path)}
    assert not names & {"benchmarks", "tests"}


def test_folders_and_files_are_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in MODULES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long.keys() <= {
        "jaxres/checkpoint/manager.py",
        "jaxres/models/blocks.py",
    }
    folders = {path.parent for path in MODULES}
    crowded = [str(each) for each in folders if len([*each.glob("[!_]*.py")]) > MOST_MODULES]
    assert crowded == []
