import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxres.data import prepare
from jaxres.data.datasets import photos
from jaxres.data.datasets.bad import Bad
from jaxres.data.readers import decoding
from jaxres.runtime.errors import InputError
from tests.data.conftest import write_photo


def prepare_photos(from_dir: Path, data_dir: Path, **options: Any) -> Any:
    """The prepared photographs as TFDS sees them."""
    folder = prepare.prepare(
        "photos", from_dir=from_dir, data_dir=data_dir, progress=False, **options
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
    original = decoding.read_image(photos_dir / "test" / "g.png")
    assert original.shape == (48, 64, 3)
    expected = cv2.resize(original, (53, 40), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(example["image"], expected)


def test_photos_without_split_folders_are_split_by_content(tmp_path: Path):
    for seed in range(100):
        write_photo(tmp_path / "all" / f"album{seed % 3}" / f"{seed}.png", seed)
    splits = photos.split_photos(tmp_path / "all", Bad(skip=False), shown=False)
    sizes = {split: len(members) for split, members in splits.items()}
    assert sum(sizes.values()) == 100
    assert 60 <= sizes["train"] <= 80
    assert min(sizes.values()) >= 7

    # Renamed, and with more images beside them, they stay where they were.
    for seed in range(100, 120):
        write_photo(tmp_path / "all" / "more" / f"{seed}.png", seed)
    (tmp_path / "all" / "album0").rename(tmp_path / "all" / "holidays")
    later = photos.split_photos(tmp_path / "all", Bad(skip=False), shown=False)
    for split, members in splits.items():
        assert {m.sha256 for m in members} <= {m.sha256 for m in later[split]}


def test_one_image_in_two_splits_is_refused(photos_dir: Path, tmp_path: Path):
    shutil.copy(photos_dir / "train" / "a.jpg", photos_dir / "test" / "again.jpg")
    with pytest.raises(InputError, match=r"again\.jpg .*a\.jpg .*are the same image"):
        prepare_photos(photos_dir, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))


def test_one_image_twice_in_a_split_is_kept_once(
    photos_dir: Path, caplog: pytest.LogCaptureFixture
):
    shutil.copy(photos_dir / "train" / "a.jpg", photos_dir / "train" / "again.jpg")
    splits = photos.split_photos(photos_dir, Bad(skip=False), shown=False)
    assert len(splits["train"]) == 4
    assert "again.jpg is left out: the same image as" in caplog.text


def names_of(builder: Any) -> list[str]:
    return [
        example["file_name"].decode()
        for split in ("train", "validation", "test")
        for example in builder.as_data_source(split)
    ]


def test_linked_folders_are_read_and_circles_end(photos_dir: Path, tmp_path: Path):
    for seed in range(5):
        write_photo(tmp_path / "elsewhere" / f"{seed}.png", 50 + seed)
    (photos_dir / "train" / "more").symlink_to(tmp_path / "elsewhere")
    (photos_dir / "train" / "sub" / "round").symlink_to(photos_dir / "train")
    (photos_dir / "nowhere").symlink_to(tmp_path / "gone")
    names = names_of(prepare_photos(photos_dir, tmp_path / "data"))
    assert [name for name in names if "more" in name] == [f"train/more/{k}.png" for k in range(5)]
    assert len(names) == len(set(names)) == 8 + 5


def test_split_folders_below_folders_that_are_all_there_is(photos_dir: Path, tmp_path: Path, capfd):
    inner = tmp_path / "unzipped" / "archive" / "set"
    inner.parent.mkdir(parents=True)
    shutil.copytree(photos_dir, inner)
    (tmp_path / "unzipped" / "__MACOSX").mkdir()
    (tmp_path / "unzipped" / "README.txt").write_text("by its authors")
    splits = photos.split_photos(tmp_path / "unzipped", Bad(skip=False), shown=True)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [4, 2, 2]
    assert f"photos, split by the folders in {inner}" in capfd.readouterr().err
    write_photo(tmp_path / "unzipped" / "another" / "x.png", 77)
    photos.split_photos(tmp_path / "unzipped", Bad(skip=True), shown=True)
    told = f"split by the hash of their content: no folders train, validation and test in {inner}"
    assert told.replace(str(inner), str(tmp_path / "unzipped")) in capfd.readouterr().err


def spoil(folder: Path) -> list[str]:
    """Names of six files that cannot be used."""
    text_named_jpg(folder)
    tiny_image(folder)
    image_outside(folder)
    shutil.copy(folder / "test" / "g.png", folder / "train" / "again.png")
    (folder / "val" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    cut = (folder / "train" / "b.PNG").read_bytes()[:-30]
    (folder / "train" / "cut.png").write_bytes(cut)
    return ["x.jpg", "tiny.png", "misc/x.png", "again.png", "phone.HEIC", "cut.png"]


def test_all_bad_images_are_named_at_once_or_left_out(photos_dir: Path, tmp_path: Path, capfd):
    good = names_of(prepare_photos(photos_dir, tmp_path / "good"))
    bad = spoil(photos_dir)
    with pytest.raises(InputError, match=r"fix or remove the 6, or .* --skip-bad") as error:
        prepare_photos(photos_dir, tmp_path / "data")
    assert all(name in str(error.value) for name in bad)
    assert not list((tmp_path / "data").glob("*"))
    capfd.readouterr()
    names = names_of(prepare_photos(photos_dir, tmp_path / "data", skip_bad=True))
    assert names == good
    said = capfd.readouterr().err
    assert "left out 6 images that cannot be used: " in said
    assert all(name in said for name in bad)


def test_skipping_is_for_sets_of_any_images(tmp_path: Path):
    with pytest.raises(InputError, match="--skip-bad is given for mnist; allowed for: flow"):
        prepare.prepare("mnist", from_dir=tmp_path, data_dir=tmp_path, skip_bad=True)


def no_test_folder(folder: Path) -> None:
    shutil.rmtree(folder / "test")


def image_outside(folder: Path) -> None:
    write_photo(folder / "misc" / "x.png", 77)


def text_named_jpg(folder: Path) -> None:
    (folder / "train" / "x.jpg").write_text("not an image " * 50)


def tiny_image(folder: Path) -> None:
    write_photo(folder / "val" / "tiny.png", 78, height=31, width=200)


def no_pictures(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_test_folder, "gives split 'test' none of its 6 images"),
        (image_outside, r"x\.png is outside the folders train, validation"),
        (text_named_jpg, r"train/x\.jpg is not a whole image"),
        (tiny_image, r"short side of .*tiny\.png is 31 pixels; allowed: 32"),
        (no_pictures, "no images in"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_bad_photographs_are_refused_and_leave_nothing(
    photos_dir: Path, tmp_path: Path, change: Callable[[Path], None], message: str
):
    change(photos_dir)
    with pytest.raises(InputError, match=message):
        prepare_photos(photos_dir, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))
