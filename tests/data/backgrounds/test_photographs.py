from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxres.config import Split
from jaxres.data import prepare
from jaxres.data.backgrounds import photographs
from jaxres.data.datasets.splits import SPLITS
from jaxres.data.readers import decoding
from jaxres.runtime.errors import InputError
from tests.data.conftest import write_photo


def load(
    name: str,
    split: Split,
    data_dir: Path = Path("absent"),
    *,
    canvas: int = 32,
    photo_side: int | None = None,
) -> np.ndarray:
    return photographs.load(name, split, data_dir=data_dir, canvas=canvas, photo_side=photo_side)


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("validation", 2), ("test", 2)])
def test_embedded_covers_a_canvas_of_224(split: Split, count: int):
    assert load("embedded", split, canvas=224).shape == (count, 320, 320, 3)
    assert load("embedded", split, canvas=224, photo_side=224).shape == (count, 224, 224, 3)


def test_embedded_splits_share_no_pixels():
    """The halves, told apart by their columns in the photographs."""
    sources = {}
    for split in SPLITS:
        for photo in photographs._read_embedded(split, Path("absent")):
            assert photo.pixels.shape == (427, 320, 3)
            sources[photo.pixels.tobytes()] = split
    assert sorted(sources.values()) == ["test", "train", "train", "validation"]


def test_embedded_is_rgb():
    """The sky over the Chinese palace is blue."""
    red, _, blue = load("embedded", "train")[0, :40, :40].mean(axis=(0, 1))
    assert blue > red + 10


def test_black():
    assert load("black", "test", canvas=40).shape == (1, 40, 40, 3)
    assert not load("black", "test", canvas=40).any()


@pytest.mark.parametrize(
    ("shape", "starts"),
    [
        ((40, 40), [0]),
        ((40, 41), [0, 1]),
        ((40, 80), [0, 40]),
        ((40, 100), [0, 30, 60]),
        ((100, 40), [0, 30, 60]),
    ],
)
def test_squares_are_evenly_spaced_and_cover_the_image(shape: tuple[int, int], starts: list[int]):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    squares = photographs._squares(image)
    upright = shape[0] > shape[1]
    expected = [image[s : s + 40] if upright else image[:, s : s + 40] for s in starts]
    np.testing.assert_array_equal(squares, expected)


def test_photographs_are_shrunk_to_the_smallest_of_the_split(tmp_path: Path):
    write_photo(tmp_path / "in" / "train" / "a.png", 0, height=60, width=90)
    write_photo(tmp_path / "in" / "train" / "b.png", 1, height=150, width=50)
    write_photo(tmp_path / "in" / "val" / "c.png", 2, height=70, width=70)
    write_photo(tmp_path / "in" / "test" / "d.png", 3, height=80, width=200)
    prepare.prepare("photos", from_dir=tmp_path / "in", data_dir=tmp_path, progress=False)

    bank = load("photos", "train", tmp_path)
    # 60x90 becomes 50x75, two squares; 150x50 stays, three squares.
    assert bank.shape == (5, 50, 50, 3)
    wide = cv2.resize(
        decoding.read_image(tmp_path / "in" / "train" / "a.png"),
        (75, 50),
        interpolation=cv2.INTER_AREA,
    )
    np.testing.assert_array_equal(bank[0], wide[:, :50])
    np.testing.assert_array_equal(bank[1], wide[:, 25:])
    tall = decoding.read_image(tmp_path / "in" / "train" / "b.png")
    np.testing.assert_array_equal(bank[2:], tall.reshape(3, 50, 50, 3))
    assert load("photos", "test", tmp_path).shape == (3, 80, 80, 3)
    assert load("photos", "train", tmp_path, photo_side=40).shape == (5, 40, 40, 3)
    # Never enlarged.
    assert load("photos", "train", tmp_path, photo_side=500).shape == (5, 50, 50, 3)


@pytest.mark.slow
def test_real_photos(prepared: Callable[[str], Path]):
    data_dir = prepared("photos")
    banks = {split: load("photos", split, data_dir, canvas=224) for split in SPLITS}
    assert {split: bank.shape for split, bank in banks.items()} == {
        "train": (400, 256, 256, 3),
        "validation": (200, 256, 256, 3),
        "test": (400, 256, 256, 3),
    }
    squares = [square.tobytes() for bank in banks.values() for square in bank]
    assert len(set(squares)) == 1000


def test_photographs_smaller_than_the_canvas(synthetic_data_dir: Path):
    message = r"canvas is 49 pixels but the short side of train/\S+ in .* is 48: choose a canvas"
    with pytest.raises(InputError, match=message):
        load("photos", "train", synthetic_data_dir, canvas=49)
    with pytest.raises(InputError, match=r"canvas is 321 pixels but .* is 320"):
        load("embedded", "test", canvas=321)
    with pytest.raises(InputError, match="photo_side is 31; allowed: the canvas of 32"):
        load("photos", "train", synthetic_data_dir, photo_side=31)


def test_unknown_names(tmp_path: Path):
    with pytest.raises(InputError, match="unknown background 'photo': did you mean 'photos'"):
        load("photo", "train", tmp_path)


def test_photos_that_are_not_prepared(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"photos is not prepared in .*`jaxres data prepare photos"
    ):
        load("photos", "train", tmp_path)


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "cut at a block", "one bit"])
def test_a_damaged_shard(synthetic_data_dir: Path, damage: Callable[[Path, str], None], how: str):
    shard = synthetic_data_dir / "photos/1.0.0/photos-test.array_record-00000-of-00001"
    damage(shard, how)
    with pytest.raises(InputError, match=f"{shard} cannot be used"):
        load("photos", "test", synthetic_data_dir)


def test_describe(synthetic_data_dir: Path):
    rows = {row.name: row for row in photographs.describe(synthetic_data_dir)}
    assert rows["photos"].examples == {"train": 4, "validation": 2, "test": 2}
    assert rows["embedded"].ready
    assert rows["black"].ready
    assert not any(row.ready for row in photographs.describe(Path("absent")) if row.path)
