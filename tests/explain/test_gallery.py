"""Mistakes, the surest first, and maps as heat."""

import numpy as np
import pytest

from jaxres.data.composed import open_split
from jaxres.distributed.mesh import make_mesh
from jaxres.evaluation.run import Loaded
from jaxres.explain.gallery import (
    GAP,
    LEAST_SIDE,
    attention_sheet,
    find_mistakes,
    mistakes_of,
    mistakes_sheet,
    overlaid,
)
from jaxres.explain.preview import planned, rendered
from jaxres.explain.sheet import CAPTION, MARGIN
from jaxres.models.build import network
from tests.marked import slow

RNG = np.random.default_rng(0)


def test_mistakes_are_sorted_and_right() -> None:
    rows = RNG.dirichlet(np.full(4, 0.3), 200).astype(np.float32)
    rows[17] = rows[5]
    labels = RNG.integers(0, 4, 200).astype(np.int32)
    labels[[5, 17]] = (rows[5].argmax() + 1) % 4
    found = mistakes_of(labels, rows, "abcd")
    wanted = sorted(
        (k for k in range(200) if rows[k].argmax() != labels[k]), key=lambda k: (-rows[k].max(), k)
    )
    assert found.example.tolist() == wanted
    assert 0 < len(wanted) < 200 == found.examples
    assert wanted.index(17) == wanted.index(5) + 1
    np.testing.assert_array_equal(found.probability, rows.max(1)[wanted])
    np.testing.assert_array_equal(found.predicted, rows.argmax(1)[wanted])
    first = found.rows()[0]
    k = wanted[0]
    assert first == {
        "example": k,
        "label": labels[k],
        "class": "abcd"[labels[k]],
        "predicted": rows[k].argmax(),
        "predicted_class": "abcd"[rows[k].argmax()],
        "probability": pytest.approx(rows[k].max()),
    }
    none = mistakes_of(rows.argmax(1).astype(np.int32), rows, "abcd")
    assert none.rows() == []
    assert none.examples == 200


@pytest.mark.parametrize("composition", ["plain", "scale_blend", slow("scatter_digits")])
def test_the_sheet_shows_the_images_that_were_taken_for_another(
    tiny_config, tmp_path, composition: str
) -> None:
    render = "host" if composition == "plain" else "device"
    config = tiny_config(
        f"--data.composition={composition}",
        f"--data.render={render}",
        "--data.batch-size=16",
        "--data.canvas=64",
        "--data.texture-count=8",
    )
    net, dataset = network(config, classes=10), open_split(config, "test")
    weights = {"params": net.params, "stats": net.stats}
    run = Loaded(tmp_path, 0, config, make_mesh(1), net, weights, dataset)
    mistakes = find_mistakes(run)
    assert 25 < len(mistakes.rows()) < mistakes.examples == 50
    sheet = mistakes_sheet(run, mistakes, count=4)
    cell = 64 + CAPTION + MARGIN
    width = (sheet.shape[1] - MARGIN) // 2
    whole = rendered(dataset, planned(dataset, range(50)))
    for place, example in enumerate(mistakes.example[:4]):
        top, left = MARGIN + place // 2 * cell, MARGIN + place % 2 * width
        shown = sheet[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(shown, whole[example])


def test_heat_is_blue_without_and_red_with_the_most() -> None:
    images = np.full((3, 8, 8, 3), 100, np.uint8)
    maps = np.zeros((3, 8, 8), np.float32)
    maps[0, 2, 3], maps[0, 2, 4], maps[1, 5, 5], maps[1, 0, 0] = 4, 2, 1e-6, -3
    heat = overlaid(images, maps).astype(int)
    blue = heat[2, 0, 0]
    assert blue[2] > blue[0] + 30
    assert (heat[2] == blue).all()
    for image, row, column in [(0, 2, 3), (1, 5, 5)]:
        assert heat[image, row, column, 0] > heat[image, row, column, 2] + 30
    assert (heat[1, 0, 0] == blue).all()
    assert (heat[0, 2, 4] != heat[0, 2, 3]).any()
    assert not np.array_equal(overlaid(images // 2, maps), heat)


def test_maps_stand_to_the_right_of_their_image() -> None:
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    maps = [RNG.random((2, 32, 32)).astype(np.float32) for _ in range(2)]
    sheet = attention_sheet(images, maps, ["one", "two"])
    assert sheet.shape == (
        2 * (LEAST_SIDE + CAPTION + MARGIN) + MARGIN,
        3 * LEAST_SIDE + 2 * GAP + 2 * MARGIN,
        3,
    )
    for place, wanted in enumerate([images, overlaid(images, maps[0]), overlaid(images, maps[1])]):
        left = MARGIN + place * (LEAST_SIDE + GAP)
        found = sheet[MARGIN : MARGIN + LEAST_SIDE : 2, left : left + LEAST_SIDE : 2]
        np.testing.assert_array_equal(found, wanted[0])
