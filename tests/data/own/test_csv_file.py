import os
from pathlib import Path

import numpy as np
import pytest

from jaxres.data.composed import open_split
from jaxres.runtime.errors import InputError
from tests.data.own.conftest import Settings


@pytest.fixture
def rows(image_folder: Path) -> list[tuple[str, str]]:
    """The images of the folder as rows of a CSV file beside it."""
    files = sorted(image_folder.rglob("*.*"))
    return [(str(file.relative_to(image_folder.parent)), file.parent.name) for file in files]


def write(folder: Path, header: str, rows: list[str]) -> str:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return f"csv:{path}"


def test_it_is_the_dataset_that_the_folder_is(
    image_folder: Path, rows: list[tuple[str, str]], settings: Settings, tmp_path: Path
):
    table = write(tmp_path, "label,file", [f"{label},{file}" for file, label in rows])
    for split in ("train", "validation", "test"):
        ours = open_split(settings(table), split)
        folders = open_split(settings(f"folder:{image_folder}"), split)
        np.testing.assert_array_equal(ours.source.labels, folders.source.labels)
        np.testing.assert_array_equal(ours.resident.images, folders.resident.images)
        assert ours.fingerprint == folders.fingerprint


def test_numbers_are_sorted_by_value_and_a_column_says_the_split(
    rows: list[tuple[str, str]], settings: Settings, tmp_path: Path
):
    number = {"cat": "10", "dog": "9", "owl": "100"}
    lines = [
        f"{file},{number[label]},{('train', 'val', 'test')[place % 3]}"
        for place, (file, label) in enumerate(rows)
    ]
    config = settings(write(tmp_path, "File,Label,Split", lines))
    found = {name: open_split(config, name) for name in ("train", "validation", "test")}
    assert found["train"].class_names == ("9", "10", "100")
    assert [len(each) for each in found.values()] == [13, 12, 12]


def test_a_column_per_class_makes_multi_label_data(
    rows: list[tuple[str, str]], settings: Settings, tmp_path: Path
):
    lines = [
        f"{file},{int(label == 'cat')},{int(label == 'dog')},{place % 2}"
        for place, (file, label) in enumerate(rows)
    ]
    dataset = open_split(settings(write(tmp_path, "file,cat,dog,even", lines)), "train")
    assert dataset.multi_label
    assert dataset.class_names == ("cat", "dog", "even")
    assert dataset.source.labels.shape == (29, 3)
    assert dataset.source.labels.dtype == np.uint8
    batch = dataset.batch(np.arange(8, dtype=np.int32), epoch=0, first=0)
    np.testing.assert_array_equal(batch["label"], dataset.source.labels[:8])


@pytest.mark.parametrize(
    ("header", "row", "reason"),
    [
        ("name,label", "a.png,cat", "has the columns name, label; allowed: a header with a column"),
        ("file", "{}", "has the columns file; allowed"),
        ("file,label", "missing.png,cat", "line 39 names 'missing.png', which is not a file here"),
        ("file,label", "{},cat", "lists pets/cat/0.jpg in line 2 and in line 39"),
        ("file,label", "{},cat,more", "line 39 has 3 fields, the header 2"),
        ("file,label", "pets/new.png,", "has rows without a label"),
        ("file,label", '"a\0.png",cat', "is not a CSV file in UTF-8|which is not a file here"),
    ],
)
def test_rows_that_cannot_be(
    image_folder: Path,
    rows: list[tuple[str, str]],
    settings: Settings,
    tmp_path: Path,
    header: str,
    row: str,
    reason: str,
):
    os.link(image_folder / "cat" / "1.png", image_folder / "new.png")
    columns = header.count(",") + 1
    lines = [",".join((file, label)[:columns]) for file, label in rows]
    with pytest.raises(InputError, match=reason):
        open_split(settings(write(tmp_path, header, [*lines, row.format(rows[0][0])])), "train")


def test_answers_that_are_none(rows: list[tuple[str, str]], settings: Settings, tmp_path: Path):
    lines = [f"{file},1,0" for file, _ in rows]
    lines[4] = f"{rows[4][0]},1,yes"
    with pytest.raises(InputError, match="line 6 has 'yes' for a class"):
        open_split(settings(write(tmp_path, "file,a,b", lines)), "train")


def test_one_class_and_none(rows: list[tuple[str, str]], settings: Settings, tmp_path: Path):
    with pytest.raises(InputError, match="has one class, 'x'"):
        open_split(settings(write(tmp_path, "file,label", [f"{f},x" for f, _ in rows])), "train")
    with pytest.raises(InputError, match="has no rows"):
        open_split(settings(write(tmp_path, "file,label", [])), "train")
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        open_split(settings(f"csv:{tmp_path / 'no.csv'}"), "train")
