"""Charts: the points are where they belong, and the colours follow the reader's scheme."""

import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from jaxres.report import charts

SVG = "{http://www.w3.org/2000/svg}"


def texts(drawn: str) -> list[str]:
    return ["".join(each.itertext()) for each in ET.fromstring(drawn).iter(f"{SVG}text")]


def crowded(count: int, ends: float = 0.9) -> dict[str, charts.Curve]:
    """Lines over all of the axes that end close together; the later, the higher by a little."""
    return {
        f"network {k} of a rather long name, trained twice": [
            (1.0, k / count),
            (2.0, 1 - k / count),
            (3.0, ends + 1e-3 * k),
        ]
        for k in range(count)
    }


def of_crowd(count: int, **how) -> Figure:
    return charts.draw_curves(crowded(count), x="epoch", y="accuracy", **how)


def numbers(figure: Figure) -> list[Text]:
    return [each for each in figure.axes[0].texts if each.get_text()]


def boxes(figure: Figure) -> list[np.ndarray]:
    """Corners of the legend and of the numbers at the lines' ends, in pixels."""
    figure.draw_without_rendering()
    drawn = [*figure.legends[0].get_texts(), *numbers(figure)]
    return [each.get_window_extent().get_points() for each in drawn]


def overlap(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two boxes, low and high corner, have more than an edge in common."""
    return bool((np.minimum(one[1], other[1]) - np.maximum(one[0], other[0]) > 0.5).all())


def test_curves_have_names_axes_and_as_many_points_as_given() -> None:
    points = {"one": [(1.0, 0.5), (2.0, 0.7), (3.0, 0.8)], "two": [(1.0, 0.4), (2.0, 0.9)]}
    drawn = charts.curves(points, x="epoch", y="accuracy", best="highest")
    assert {"2 one", "1 two", "epoch", "accuracy"} <= {" ".join(t.split()) for t in texts(drawn)}
    # A marker for every point, and one for each name in the legend.
    assert len(re.findall(r"<use [^>]*xlink:href=\"#m", drawn)) >= 5 + 2


def test_one_line_has_no_number() -> None:
    drawn = charts.curves({"one": [(1.0, 0.5), (2.0, 0.7)]}, x="epoch", y="loss", best="lowest")
    assert "one" in texts(drawn)
    assert charts.order(1) == ""


@pytest.mark.parametrize(("count", "ends"), [(6, 0.0), (12, 0.5), (12, 0.98)])
def test_neither_names_nor_numbers_cover_a_line_or_each_other(count: int, ends: float) -> None:
    figure = charts.draw_curves(crowded(count, ends), x="epoch", y="accuracy", best="highest")
    found = boxes(figure)
    assert len(found) == 2 * count
    axes = figure.axes[0].get_window_extent().get_points()
    page = figure.bbox.get_points()
    for box in found:
        assert not overlap(box, axes)
        assert (box[0] >= page[0]).all()
        assert (box[1] <= page[1]).all()
    assert not any(overlap(one, other) for one, other in itertools.combinations(found, 2))


@pytest.mark.parametrize("best", ["highest", "lowest"])
def test_the_line_that_ends_best_is_in_front_thicker_and_first(best: charts.Best) -> None:
    figure = of_crowd(15, best=best)
    lines = figure.axes[0].get_lines()
    assert len(lines) == charts.MOST == 12
    ends = [np.asarray(line.get_xydata())[-1, 1] for line in lines]
    order = sorted((0.9 + 1e-3 * k for k in range(15)), reverse=best == "highest")
    np.testing.assert_allclose(ends, order[:12])
    behind = [line.get_zorder() for line in lines]
    assert behind == sorted(behind, reverse=True)
    assert len(set(behind)) == 12
    assert lines[0].get_linewidth() > max(line.get_linewidth() for line in lines[1:])
    # Numbers stand as the ends do, and the legend is in their order.
    heights = [each.get_window_extent().y0 for each in numbers(figure)]
    assert heights == sorted(heights, reverse=best == "highest")
    names = [each.get_text().split()[0] for each in figure.legends[0].get_texts()]
    assert names == [each.get_text() for each in numbers(figure)]
    assert names == [str(k) for k in range(1, 13)]


def test_the_caption_says_how_many_lines_are_left_out() -> None:
    assert "left out" not in charts.order(12)
    assert "the first 12 of 15 are drawn, 3 left out" in charts.order(15)


def test_a_line_that_ends_in_no_number_is_last() -> None:
    points = {
        "broken": [(1.0, 0.5), (2.0, float("nan"))],
        "large": [(1.0, 0.5), (2.0, float("inf"))],
        "whole": [(1.0, 0.5), (2.0, 0.7)],
    }
    for best in ("highest", "lowest"):
        figure = charts.draw_curves(points, x="epoch", y="loss", best=best, logarithmic=True)
        assert figure.legends[0].get_texts()[0].get_text() == "1  whole"
        assert np.isfinite(boxes(figure)).all()


def test_long_names_stay_on_the_chart() -> None:
    names = [
        "/a/folder/of/runs" * 9,
        "NESTEROV, L2 AND SPATIAL DROPOUT " * 2,
        "three words here " * 6,
    ]
    points = {name: [(1.0, 0.5), (2.0, k / 3)] for k, name in enumerate(names)}
    figure = charts.draw_curves(points, x="epoch", y="loss", best="lowest")
    found = boxes(figure)
    assert all((box[1] <= figure.bbox.get_points()[1]).all() for box in found)
    assert figure.axes[0].get_window_extent().height > 150


def test_letters_are_large_enough_on_a_phone() -> None:
    # The page leaves 358 of its 390 pixels; an inch is 96 of them, a point a 72nd.
    assert charts.FONT * 96 / 72 * 358 / (charts.WIDTH * 96) > 10


def test_no_two_of_many_lines_are_alike() -> None:
    lines = [
        line
        for best in ("highest", "lowest")
        for line in charts.draw_curves(crowded(24), x="epoch", y="loss", best=best)
        .axes[0]
        .get_lines()
    ]
    assert len({str(line.get_label()).split()[2] for line in lines}) == 24
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 24  # type: ignore[attr-defined]


# Machado, Oliveira and Fernandes 2009: linear RGB as it is seen without red, or green, cones.
SEEN = {
    "without red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "without green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}
TO_XYZ = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(np.array(TO_XYZ) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.0888])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("paper", "ink"), [("#ffffff", "#1b1f24"), ("#14171a", "#e6e8eb")])
def test_lines_stand_out_and_differ_for_the_colour_blind(paper: str, ink: str) -> None:
    assert ink in charts.SCHEMES
    colours = [ink if colour == charts.INK else colour for colour in charts.COLOURS]
    for colour in colours:
        dark, light = sorted(linear(each) @ TO_XYZ[1] for each in (paper, colour))
        assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 1.4.11
    for matrix in (np.eye(3), *SEEN.values()):
        seen = [lab(np.array(matrix) @ linear(each)) for each in colours]
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert nearest > 10  # 2 can just be told apart side by side


def test_the_highest_point_is_drawn_highest() -> None:
    drawn = charts.curves(
        {"one": [(1.0, 0.1), (2.0, 0.9), (3.0, 0.5)]}, x="epoch", y="loss", best="lowest"
    )
    path = re.search(r'<path d="(M[^"]*)"[^>]*stroke: #0072b2', drawn)
    assert path is not None
    numbers = [float(each) for each in re.findall(r"[\d.]+", path[1])]
    low, high, middle = numbers[1::2]
    assert high < middle < low  # y grows downward in SVG


def test_every_word_has_the_readers_colour() -> None:
    drawn = charts.curves(
        {"one": [(1.0, 0.4), (2.0, 0.06)]}, x="epoch", y="loss", best="lowest", logarithmic=True
    )
    words = [
        style
        for tag in ("text", "tspan")
        for each in ET.fromstring(drawn).iter(f"{SVG}{tag}")
        if "font-size" in (style := each.get("style", ""))
    ]
    assert len(words) > 6
    assert all("fill: var(--ink)" in style for style in words)


def test_epochs_are_whole_numbers() -> None:
    drawn = charts.curves(
        {"one": [(0.5, 0.4), (1.0, 0.3), (2.0, 0.6)]}, x="epoch", y="accuracy", best="highest"
    )
    assert {"1", "2"} <= set(texts(drawn))
    assert "1.5" not in texts(drawn)


def test_no_fixed_ink_is_left_and_the_drawing_is_the_same_each_time() -> None:
    points = {"one": [(1.0, 0.5), (2.0, 0.7)]}
    drawn = charts.curves(points, x="epoch", y="loss", best="lowest", logarithmic=True)
    assert charts.INK not in drawn
    assert "prefers-color-scheme:dark" in drawn
    assert drawn == charts.curves(points, x="epoch", y="loss", best="lowest", logarithmic=True)
