"""Contact sheets of every kind of picture."""

import cv2
import numpy as np
import pytest

from jaxres.data import prepare
from jaxres.data.pictures import open_split
from jaxres.data.preview import MARGIN, write_sheet


@pytest.mark.parametrize("render", ["device", "host"])
def test_a_sheet_of_plain_pictures_shows_them_as_they_are(
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
