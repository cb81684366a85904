"""A CSV file of image files and their labels: one class each, or a column of 0 and 1 per class."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.data.datasets.dataset import Dataset, Selection, Source
from jaxres.data.own.examples import Examples, select
from jaxres.data.own.image_folder import SPLIT_FOLDERS
from jaxres.data.readers.encoded import ImageFiles
from jaxres.runtime.errors import InputError, unreadable

PREFIX = "csv:"
FILE_COLUMNS = ("file", "file_name", "filename", "image", "path")
LABEL_COLUMNS = ("label", "class")
SPLIT_COLUMN = "split"
MAX_FIELD = 1 << 16  # characters
FORM = (
    "allowed: a header with a column `file` and either `label`, or one column of 0 and 1 for each "
    "class; `split` (train, val, test) is optional"
)


class Table(NamedTuple):
    """The image files of a CSV file with their labels, by split."""

    path: Path
    class_names: tuple[str, ...]
    splits: Mapping[str, range]
    files: Sequence[Path]
    labels: Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]


def read(path: Path) -> Table:
    """The rows of a CSV file; file names are relative to its folder.

    Labels are names or numbers; classes are sorted, numbers by value.

    Raises:
        InputError: it is not such a file, an image file is not there or listed twice, there are
            fewer than two classes, or a class has no training image.
    """
    header, rows = _rows(path)
    lower = [name.strip().lower() for name in header]
    file = next((lower.index(name) for name in FILE_COLUMNS if name in lower), None)
    label = next((lower.index(name) for name in LABEL_COLUMNS if name in lower), None)
    split = lower.index(SPLIT_COLUMN) if SPLIT_COLUMN in lower else None
    columns = [k for k in range(len(header)) if k not in (file, label, split)]
    if file is None or (label is None and len(columns) < 2):
        raise InputError(f"{path} has the columns {', '.join(header) or 'of no header'}; {FORM}")
    parts: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
    for line, row in rows:
        given = "train" if split is None else row[split].strip().lower()
        name = SPLIT_FOLDERS.get(given)
        if name is None:
            raise InputError(f"{path} line {line} has the split '{given:.80}'; {FORM}")
        parts[name].append((line, row))
    if "train" not in parts:
        raise InputError(f"{path} has no training images")
    ordered = {name: parts[name] for name in ("train", "validation", "test") if name in parts}
    every = [row for rows in ordered.values() for row in rows]
    files = _files(path, [(line, row[file]) for line, row in every])
    splits, first = {}, 0
    for name, members in ordered.items():
        splits[name] = range(first, first + len(members))
        first += len(members)
    if label is None:
        names = tuple(header[k].strip() for k in columns)
        return Table(path, names, splits, files, _matrix(path, every, columns))
    given = [row[label].strip() for _, row in every]
    names = _classes(path, given, splits)
    numbers = {name: number for number, name in enumerate(names)}
    return Table(path, names, splits, files, np.array([numbers[each] for each in given], np.int32))


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows with their line numbers, all of its length."""
    try:
        csv.field_size_limit(MAX_FIELD)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise unreadable(path, error) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}") from error
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path} line {line} has {len(row)} fields, the header {len(header)}; {FORM}"
            )
    if not rows:
        raise InputError(f"{path} has no rows; {FORM}")
    return header, rows


def _files(path: Path, given: Sequence[tuple[int, str]]) -> list[Path]:
    seen: dict[str, int] = {}
    files = []
    for line, name in given:
        file = path.parent / name.strip()
        if name in seen:
            raise InputError(f"{path} lists {name:.200} in line {seen[name]} and in line {line}")
        if "\0" in name or not file.is_file():
            raise InputError(f"{path} line {line} names {name!r:.200}, which is not a file here")
        seen[name] = line
        files.append(file)
    return files


def _classes(path: Path, given: Sequence[str], splits: Mapping[str, range]) -> tuple[str, ...]:
    names = set(given)
    if len(names) < 2:
        raise InputError(f"{path} has one class, '{given[0]:.80}'; allowed: two or more")
    if "" in names:
        raise InputError(f"{path} has rows without a label; {FORM}")
    trained = {given[k] for k in splits["train"]}
    if missing := sorted(names - trained):
        raise InputError(f"{path} has no training image of '{missing[0]:.80}'")
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def _matrix(
    path: Path, rows: Sequence[tuple[int, list[str]]], columns: Sequence[int]
) -> UInt8[np.ndarray, "n classes"]:
    labels = np.zeros((len(rows), len(columns)), np.uint8)
    for place, (line, row) in enumerate(rows):
        for k, column in enumerate(columns):
            value = row[column].strip()
            if value not in ("0", "1"):
                raise InputError(f"{path} line {line} has '{value:.80}' for a class; {FORM}")
            labels[place, k] = value == "1"
    return labels


def examples(table: Table, name: str, canvas: int) -> Examples:
    """The rows of a CSV file as the examples of a dataset."""
    every = ImageFiles([str(file) for file in table.files], canvas)
    return Examples(name, table.class_names, table.splits, table.labels, every.__getitem__)


def load(dataset: Dataset, selection: Selection) -> Source:
    """A split of the images that a CSV file lists, read when they are looked at."""
    table = read(Path(dataset.name.removeprefix(PREFIX)).expanduser())
    return select(examples(table, dataset.name, selection.canvas), selection)


def dataset(name: str) -> Dataset:
    """The dataset that `csv:FILE` names."""
    return Dataset(name=name, title="images listed in a CSV file", load=load, photographs=True)
