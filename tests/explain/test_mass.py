"""The share of a map inside the digit's box, of maps and boxes that are known."""

import numpy as np
import pytest

from jaxres.data.composed import open_split
from jaxres.explain.mass import digit_boxes, shares_in_boxes
from jaxres.explain.preview import planned, rendered


def test_shares_of_known_maps() -> None:
    maps = np.zeros((5, 10, 8), np.float32)
    maps[0, 2:4, 3:7] = 1  # all inside
    maps[1, 1:5, 3:7] = 1  # half of its rows
    maps[2, 2:4, 2:4] = [[3, 1], [3, 1]]  # a quarter, by mass
    maps[3, 2, 3], maps[3, 0, 0] = 1, -5  # what is below zero is not a mass
    boxes = np.array([[2, 3, 4, 7]] * 5, np.int32)
    np.testing.assert_allclose(shares_in_boxes(maps, boxes), [1, 0.5, 0.25, 1, 0])
    boxes[1] = [0, 0, 10, 8]
    assert shares_in_boxes(maps, boxes)[1] == 1


@pytest.mark.parametrize(
    "finish", [(), ("--data.resize=96",), ("--data.pad=71",), ("--data.resize=96", "--data.pad=99")]
)
@pytest.mark.parametrize("render", ["device", "host"])
def test_boxes_hold_the_digit_and_nothing_else(tiny_config, render: str, finish) -> None:
    """A digit of full opacity over nothing is all there is to see."""
    config = tiny_config(
        "--data.canvas=48",
        "--data.backgrounds=black",
        "--data.digit-side-range",
        "12",
        "20",
        "--data.placement=random",
        "--data.opacity=1",
        f"--data.render={render}",
        *finish,
    )
    dataset = open_split(config, "test")
    batch = planned(dataset, range(6))
    boxes = digit_boxes(dataset, batch)
    assert boxes is not None
    images = rendered(dataset, batch)
    assert len({tuple(box) for box in boxes.tolist()}) == 6
    scale = (config.data.resize or 48) / 48
    for image, (top, left, bottom, right) in zip(images, boxes, strict=True):
        ink = image.max(2)
        spread = 2 if config.data.resize else 0  # of bicubic resizing
        inside = ink[max(0, top - spread) : bottom + spread, max(0, left - spread) : right + spread]
        assert inside.sum() == ink.sum()
        assert ink[top + 1 : bottom - 1, left + 1 : right - 1].max() > 200
        assert bottom - top == right - left
        assert 12 * scale <= bottom - top <= 20 * scale
        rows = np.flatnonzero(ink.max(1) > 100)
        assert rows[0] - top <= 3 * scale  # scikit-learn's digits fill their squares
        assert bottom - 1 - rows[-1] <= 3 * scale


def test_boxes_of_a_scattered_digit(tiny_config) -> None:
    flags = ("--data.composition=scatter_digits", "--data.canvas=64", "--data.texture-count=4")
    black = ("--data.textures=photos:1", "--data.backgrounds=black")
    dataset = open_split(tiny_config(*flags, *black, "--data.digits=1"), "test")
    batch = planned(dataset, range(6))
    boxes = digit_boxes(dataset, batch)
    assert boxes is not None
    for image, (top, left, bottom, right) in zip(rendered(dataset, batch), boxes, strict=True):
        white = image[..., 0] == 255
        assert white[top:bottom, left:right].sum() == white.sum() > 20
        assert (bottom - top) * (right - left) < 0.6 * 64**2


def test_boxes_that_are_not_known(tiny_config) -> None:
    flags = ("--data.canvas=64", "--data.texture-count=4", "--data.composition=scatter_digits")
    for more, split in [
        (flags, "test"),
        (("--data.composition=plain",), "test"),
        (("--data.center=true",), "test"),
        (("--augment.rotate=10",), "train"),
    ]:
        dataset = open_split(tiny_config(*more), split)
        assert digit_boxes(dataset, planned(dataset, range(2))) is None
