"""A study: the rows of its table, each a recipe with flags, read from `studies/NAME.yaml`."""

import dataclasses
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from jaxres.config.shipped import shipped
from jaxres.runtime.errors import InputError, find, unknown_name

Profile = Literal["mini", "full"]
FOLDER = Path("studies")
ROW_IN_ANSWER = re.compile(r"\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Row:
    """One system of a study's table."""

    name: str
    title: str
    recipe: Path
    flags: tuple[str, ...] = ()
    start: str | None = None  # the row whose weights it starts from
    study: Mapping[str, float] = dataclasses.field(default_factory=dict)  # its accuracy, its loss


@dataclasses.dataclass(frozen=True)
class Study:
    """One profile of a study."""

    name: str
    profile: Profile
    title: str
    question: str
    about: str  # what the profile is
    rows: tuple[Row, ...]
    # Words of `jaxres evaluate RUN --sweep`: every network is evaluated with it as well.
    sweep: tuple[str, ...] = ()
    first: tuple[str, ...] = ()  # rows to run before the others, where time is short
    answer: str = ""  # to the question, in a sentence or two; {ROW} stands for a row's accuracy

    def answered(self, accuracies: Mapping[str, float]) -> str:
        """The answer with the accuracies of the rows it names; empty if one of them is missing."""
        named = ROW_IN_ANSWER.findall(self.answer)
        if not all(name in accuracies for name in named):
            return ""
        return ROW_IN_ANSWER.sub(lambda each: f"{accuracies[each[1]]:.3f}", self.answer)

    def row(self, name: str) -> Row:
        """A row by its name.

        Raises:
            InputError: there is none.
        """
        found = {row.name: row for row in self.rows}
        return find(f"row of study {self.name}, {self.profile}", name, found)

    def with_starts(self, name: str) -> tuple[Row, ...]:
        """A row after those whose weights it starts from, in the order to run them.

        Raises:
            InputError: they start from each other in a circle.
        """
        found = [self.row(name)]
        while start := found[0].start:
            if any(row.name == start for row in found):
                raise InputError(f"rows of study {self.name} start from '{start}' in a circle")
            found.insert(0, self.row(start))
        return tuple(found)

    def in_order(self) -> tuple[Row, ...]:
        """All rows, those of `first` before others, each after those it starts from."""
        names = (*self.first, *(row.name for row in self.rows))
        each = (row for last in names for row in self.with_starts(last))
        return tuple({row.name: row for row in each}.values())


def home() -> Path:
    """Where the studies are: the folder `studies` here, if it has any, or JaxRes's own."""
    return FOLDER if any(FOLDER.glob("*.yaml")) else shipped("studies")


def names(folder: Path | None = None) -> list[str]:
    """The studies there are."""
    folder = folder or home()
    return sorted(each.stem for each in folder.glob("*.yaml"))


def read_all(name: str, folder: Path | None = None) -> list[Study]:
    """Every profile that a study has; errors as of `read`."""
    path = (folder or home()) / f"{name}.yaml"
    content = _content(path)
    there = content.get("profiles") or {}
    return [_profile(each, path, content) for each in get_args(Profile) if each in there]


def read(name: str, profile: Profile, folder: Path | None = None) -> Study:
    """A study's profile.

    Raises:
        InputError: there is no such study, or its file is not made as it should be.
    """
    folder = folder or home()
    path = folder / f"{name}.yaml"
    if not path.is_file():
        if not names(folder):
            raise InputError(f"no studies in '{folder}'")
        raise unknown_name("study", name, names(folder))
    return _profile(profile, path, _content(path))


def _profile(profile: Profile, path: Path, content: Mapping[str, Any]) -> Study:
    """Raises InputError where the content is not a study with such a profile."""
    try:
        chosen = content["profiles"][profile]
        recipes = Path(content["recipes"])
        rows = tuple(_row(key, each, recipes) for key, each in chosen["rows"].items())
        sweep = tuple(shlex.split(chosen.get("sweep", "")))
        words = (content["title"], content["question"], chosen["about"])
        first = chosen.get("first") or ()
        if isinstance(first, str):
            raise TypeError("first is not a list of rows")
        answer = str(chosen.get("answer") or "").strip()
        study = Study(path.stem, profile, *words, rows, sweep, tuple(map(str, first)), answer)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not a study with a profile {profile} ({error!r:.200})"
        ) from None
    study.in_order()  # rows that are not there, or in a circle, are refused here
    for name in ROW_IN_ANSWER.findall(study.answer):
        study.row(name)
    return study


def _content(path: Path) -> dict[str, Any]:
    """Raises InputError where the file is not a mapping in YAML."""
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValueError, TypeError) as error:
        raise InputError(f"'{path}' is not a study ({error!r:.200})") from None


def _row(name: str, given: Mapping[str, Any], recipes: Path) -> Row:
    made = dict(given)
    made["recipe"] = recipes / made["recipe"]
    made["flags"] = tuple(shlex.split(made.get("flags", "")))
    return Row(name, **made)
