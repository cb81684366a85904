"""Contact sheets: every image and its caption in a place of their own; files whole."""

import pathlib

import cv2
import numpy as np
import pytest

from jaxres.explain.sheet import CAPTION, MARGIN, contact_sheet, enlarged, write_png
from jaxres.runtime.errors import InputError

WHITE = np.full((5, 20, 30, 3), 255, np.uint8)


def test_rows_and_columns() -> None:
    images = np.stack([np.full((20, 30, 3), 10 * k, np.uint8) for k in range(5)])
    sheet = contact_sheet(images, [""] * 5)
    down, right = 20 + CAPTION + MARGIN, 30 + MARGIN
    assert sheet.shape == (2 * down + MARGIN, 3 * right + MARGIN, 3)
    for k, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        top, left = MARGIN + row * down, MARGIN + column * right
        np.testing.assert_array_equal(sheet[top : top + 20, left : left + 30], images[k])
    assert contact_sheet(images, [""] * 5, columns=5).shape == (
        down + MARGIN,
        5 * right + MARGIN,
        3,
    )


def test_captions_do_not_run_into_each_other() -> None:
    sheet = contact_sheet(WHITE[:2], ["a caption wider than its picture", ""], columns=2)
    width = (sheet.shape[1] - MARGIN) // 2
    assert width > 100
    inked = np.any(sheet < 128, axis=(0, 2))
    assert inked[:width].any()
    assert not inked[width:].any()


def test_a_caption_of_several_lines() -> None:
    sheet = contact_sheet(WHITE[:1], ["one\n\nthree"])
    assert sheet.shape[0] == 20 + 3 * CAPTION + 2 * MARGIN
    inked = np.any(sheet < 128, axis=(1, 2))[MARGIN + 20 : -MARGIN].reshape(3, CAPTION).any(1)
    assert inked.tolist() == [True, False, True]


def test_small_images_grow_by_whole_numbers() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
    grown = enlarged(image, 70)
    assert grown.shape == (1, 60, 90, 3)
    np.testing.assert_array_equal(grown[:, 1::3, 2::3], image)
    np.testing.assert_array_equal(enlarged(image, 30), image)


def test_a_png_is_written_whole_or_not_at_all(tmp_path: pathlib.Path, monkeypatch) -> None:
    path = tmp_path / "x.png"
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    write_png(path, image)
    read = cv2.imread(str(path))
    assert read is not None
    np.testing.assert_array_equal(read[..., ::-1], image)
    before = path.read_bytes()

    def full(self: pathlib.Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write '.*x\.png': No space left"):
        write_png(path, image[:2])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]
