"""Contact sheets of every kind of image."""

import cv2
import numpy as np
import pytest

from jaxres.data import prepare
from jaxres.data.composed import open_split
from jaxres.explain.preview import planned, rendered, write_sheet
from jaxres.explain.sheet import MARGIN


@pytest.mark.parametrize("render", ["device", "host"])
def test_a_sheet_of_plain_images_shows_them_as_they_are(
    tiny_config, cifar_dir, tmp_path, render: str
) -> None:
    prepare.prepare("cifar10", from_dir=cifar_dir, data_dir=tmp_path, progress=False)
    config = tiny_config(
        "--data.composition=plain",
        "--data.dataset=cifar10",
        f"--data.data-dir={tmp_path}",
        f"--data.render={render}",
    )
    write_sheet(config, tmp_path / "sheet.png", split="test", count=4)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    first = sheet[MARGIN : MARGIN + 32, MARGIN : MARGIN + 32, ::-1]
    np.testing.assert_array_equal(first, open_split(config, "test").source.images[0])


@pytest.mark.parametrize("render", ["device", "host"])
@pytest.mark.parametrize("composition", ["plain", "scale_blend", "scatter_digits"])
def test_any_images_are_those_of_the_whole_split(
    tiny_config, render: str, composition: str
) -> None:
    config = tiny_config(
        f"--data.composition={composition}",
        f"--data.render={render}",
        "--data.canvas=64",
        "--data.texture-count=16",
    )
    dataset = open_split(config, "test")
    every = rendered(dataset, planned(dataset, range(9)))
    whole = dataset.batch(np.arange(9, dtype=np.int32), epoch=0, first=0)
    images = whole["image"] if render == "host" else rendered(dataset, whole)
    np.testing.assert_array_equal(every, images)
    assert len({image.tobytes() for image in every}) == 9
    some = planned(dataset, [7, 3])
    np.testing.assert_array_equal(rendered(dataset, some), every[[7, 3]])
    np.testing.assert_array_equal(some["label"], whole["label"][[7, 3]])
