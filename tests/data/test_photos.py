import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxres.data import decoding, photos, prepare
from jaxres.errors import InputError
from tests.data.conftest import write_photo


def prepare_photos(from_dir: Path, data_dir: Path, *, photo_side: int = 256) -> Any:
    """The prepared photographs as TFDS sees them."""
    folder = prepare.prepare(
        "photos", from_dir=from_dir, data_dir=data_dir, progress=False, photo_side=photo_side
    )
    return tfds.builder_from_directory(folder)


def test_photos_keep_the_split_of_their_folders(photos_dir: Path, tmp_path: Path):
    builder = prepare_photos(photos_dir, tmp_path / "data", photo_side=40)
    names = {
        split: [example["file_name"].decode() for example in builder.as_data_source(split)]
        for split in ("train", "validation", "test")
    }
    assert names == {
        "train": ["train/a.jpg", "train/b.PNG", "train/d.bmp", "train/sub/c.webp"],
        "validation": ["val/e.jpeg", "val/f.png"],
        "test": ["test/g.png", "test/h.jpg"],
    }
    example = builder.as_data_source("test")[0]
    original = decoding.read_picture(photos_dir / "test" / "g.png")
    assert original.shape == (48, 64, 3)
    expected = cv2.resize(original, (53, 40), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(example["image"], expected)


def test_photos_without_split_folders_are_split_by_content(tmp_path: Path):
    for seed in range(100):
        write_photo(tmp_path / "all" / f"album{seed % 3}" / f"{seed}.png", seed)
    splits = photos.split_photos(tmp_path / "all", shown=False)
    sizes = {split: len(members) for split, members in splits.items()}
    assert sum(sizes.values()) == 100
    assert 60 <= sizes["train"] <= 80
    assert min(sizes.values()) >= 7

    # Renamed, and with more pictures beside them, they stay where they were.
    for seed in range(100, 120):
        write_photo(tmp_path / "all" / "more" / f"{seed}.png", seed)
    (tmp_path / "all" / "album0").rename(tmp_path / "all" / "holidays")
    later = photos.split_photos(tmp_path / "all", shown=False)
    for split, members in splits.items():
        assert {m.sha256 for m in members} <= {m.sha256 for m in later[split]}


def test_one_picture_in_two_splits_is_refused(photos_dir: Path, tmp_path: Path):
    shutil.copy(photos_dir / "train" / "a.jpg", photos_dir / "test" / "again.jpg")
    with pytest.raises(InputError, match=r"again\.jpg .*a\.jpg .*are the same picture"):
        prepare_photos(photos_dir, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))


def test_one_picture_twice_in_a_split_is_kept_once(
    photos_dir: Path, caplog: pytest.LogCaptureFixture
):
    shutil.copy(photos_dir / "train" / "a.jpg", photos_dir / "train" / "again.jpg")
    splits = photos.split_photos(photos_dir, shown=False)
    assert len(splits["train"]) == 4
    assert "again.jpg is left out: the same picture as" in caplog.text


def no_test_folder(folder: Path) -> None:
    shutil.rmtree(folder / "test")


def picture_outside(folder: Path) -> None:
    write_photo(folder / "misc" / "x.png", 77)


def text_named_jpg(folder: Path) -> None:
    (folder / "train" / "x.jpg").write_text("not a picture " * 50)


def tiny_picture(folder: Path) -> None:
    write_photo(folder / "val" / "tiny.png", 78, height=31, width=200)


def no_pictures(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_test_folder, "gives split 'test' none of its 6 pictures"),
        (picture_outside, r"x\.png is outside the folders train, validation"),
        (text_named_jpg, r"train/x\.jpg is not a whole picture"),
        (tiny_picture, r"short side of .*tiny\.png is 31 pixels; allowed: 32"),
        (no_pictures, "no pictures in"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_bad_photographs_are_refused_and_leave_nothing(
    photos_dir: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
):
    spoil(photos_dir)
    with pytest.raises(InputError, match=message):
        prepare_photos(photos_dir, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))
